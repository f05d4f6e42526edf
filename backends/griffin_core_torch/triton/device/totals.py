"""Where no program may wait for another: what each tile does to the state, and the states before all tiles from that.

Two more launches, and the inputs are read twice; the passes then run with ``CARRY`` "given".
"""

from __future__ import annotations

import triton
import triton.language as tl

from .backward import cotangents, from_zero_back
from .cells import load_rate
from .forward import add_up, entries, from_zero, join, joined
from .rows import load_inputs, load_marks, load_rows, load_sequences, place, pointers


@triton.jit
def totals_kernel(
    x, y, z, param, h0, marks, begins, ends, dout, dlast, sums, states,
    batch, time, width, tiles, x_batch, y_batch, z_batch, dout_batch,
    x_time: tl.constexpr, y_time: tl.constexpr, z_time: tl.constexpr, dout_time: tl.constexpr,
    ROWS: tl.constexpr, SEGMENTS: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr,
    MARKS: tl.constexpr, PACKED: tl.constexpr, HAS_H0: tl.constexpr, BACK: tl.constexpr,
    CELL: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """Of one tile the sum of log2 a, and the state after it from zero (``BACK``: e before it), [b tiles d] each."""
    tile, row, channels, index, _ = place(sums, width, batch, SEGMENTS, ROWS, WIDTH, False)
    first = tile * (SEGMENTS * ROWS) + (SEGMENTS - 1 - index if BACK else index) * ROWS
    inside = channels < width
    at_z = pointers(z, z_batch, z_time, row, first, channels)
    if BACK:  # of the inputs only the decays matter
        zs = load_rows(at_z, z_time, first, time, inside, ROWS, WHOLE, float("-inf") if CELL != "linear" else 0.0)
        xs, ys = zs, zs
    else:
        at_x = pointers(x, x_batch, x_time, row, first, channels)
        at_y = pointers(y, y_batch, y_time, row, first, channels)
        xs, ys, zs = load_inputs(at_x, at_y, at_z, x_time, y_time, z_time, first, time, inside, ROWS, WHOLE, CELL)
    starting = load_sequences(begins, first, time, ROWS, PACKED)
    marked = load_marks(marks + row * time, starting, first, time, ROWS, MARKS, PACKED)
    scale = load_rate(param, channels, inside, CELL, BODY)
    logs, decays, inputs, cuts = entries(
        xs, ys, zs, marked, starting, h0, channels, inside, scale, width, ROWS, MARKS, PACKED, HAS_H0, CELL, BODY
    )
    if BACK:
        at_dout = pointers(dout, dout_batch, dout_time, row, first, channels)
        dys = load_rows(at_dout, dout_time, first, time, inside, ROWS, WHOLE, 0.0)
        dys = cotangents(dys, marked, ends, dlast, first, time, channels, inside, width, ROWS, MARKS, PACKED)
        state = from_zero_back(dys, decays, cuts, ROWS, MARKS, PACKED)
    else:
        state = from_zero(decays, inputs, cuts, ROWS, MARKS, PACKED)
    total, state = tl.associative_scan((add_up(logs, cuts, ROWS, MARKS, PACKED), state), 0, joined)
    at = (row * tiles + tile) * width + channels + index[:, None] * 0
    final = (index[:, None] == SEGMENTS - 1) & inside
    tl.store(sums + at, total, mask=final)
    tl.store(states + at, state, mask=final)


@triton.jit
def join_kernel(sums, states, first, slots, width, tiles, WIDTH: tl.constexpr, BACK: tl.constexpr, SLOTS: tl.constexpr):
    """Replace the state that each tile gives from zero by the one that comes to it; ``first`` [b d] comes to the first.

    ``BACK``: the last tile comes first.
    """
    row = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = channels < width
    slot = tl.load(slots + row).to(tl.int64) if SLOTS else row
    c = tl.load(first + slot * width + channels, mask=inside, other=0.0)
    for n in range(0, tiles):
        tile = tiles - 1 - n if BACK else n
        at = (row * tiles + tile) * width + channels
        total, state = tl.load(sums + at, mask=inside, other=0.0), tl.load(states + at, mask=inside, other=0.0)
        tl.store(states + at, c, mask=inside)
        c = join(total, state, c)
