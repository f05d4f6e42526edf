"""The backward kernel of the RG-LRU, up to its gates' pre-activations; products of whole matrices do the rest.

It computes the gates again and writes them where their gradients will go. On the way back they are read from there, as
``backward`` reads its inputs.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .backward import cotangents, from_zero_back, states_before
from .backward_kernel import incoming_back, outgoing_back, walk_back
from .cells import load_rate
from .forward import add_up, entries, join, joined, shifted
from .gates import block_place, gated_inputs
from .rows import load_marks, load_rows, load_sequences, pointers


@triton.jit
def rg_lru_backward_kernel(
    x, weight_x, bias_x, weight_a, bias_a, param, h0, marks, begins, ends, slots, states, dout, dlast,
    dx, dgates, dh0, drate, words, ticket, batch, time, width, tiles, saved, x_batch, dout_batch,
    x_time: tl.constexpr, dout_time: tl.constexpr, dx_time: tl.constexpr, dgates_time: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, LEVELS: tl.constexpr, AGAIN: tl.constexpr, SEGMENTS: tl.constexpr,
    WIDTH: tl.constexpr, WHOLE: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr, HAS_H0: tl.constexpr,
    SLOTS: tl.constexpr, CARRY: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """One tile; arguments as ``rg_lru_passes`` gives them. ``dgates`` [b t h 2k]: of each block gate_x, then gate_a."""
    number, row, head, part, index, _ = block_place(ticket, width, batch, BLOCK, SEGMENTS, ROWS, WIDTH, True)
    tile = tiles - 1 - number
    first = tile * (SEGMENTS * ROWS) + (SEGMENTS - 1 - index) * ROWS
    columns = (part * WIDTH + tl.arange(0, WIDTH))[None, :]
    channels, inside = head * BLOCK + columns, columns < BLOCK
    gates_batch = time.to(tl.int64) * dgates_time
    news, zs = gated_inputs(
        x, weight_x, bias_x, weight_a, bias_a, marks + row * time, dgates, row, head, part, first, time, x_batch,
        gates_batch, x_time, dgates_time, BLOCK, SEGMENTS, ROWS, LEVELS, WIDTH, WHOLE, MARKS, True, BODY,
    )  # fmt: skip
    starting = load_sequences(begins, first, time, ROWS, PACKED)
    marked = load_marks(marks + row * time, starting, first, time, ROWS, MARKS, PACKED)
    scale = load_rate(param, channels, inside, "gated", BODY)
    logs, decays, inputs, cuts = entries(
        news, news, zs, marked, starting, h0, channels, inside, scale, width, ROWS, MARKS, PACKED, HAS_H0, "half", BODY
    )
    spot = states + (row * saved + first // ROWS)[:, None] * width + channels
    befores = states_before(spot, first, time, inside, decays, inputs, cuts, ROWS, MARKS, PACKED)
    at_dout = pointers(dout, dout_batch, dout_time, row, first, channels)
    dys = load_rows(at_dout, dout_time, first, time, inside, ROWS, WHOLE, 0.0)
    dys = cotangents(dys, marked, ends, dlast, first, time, channels, inside, width, ROWS, MARKS, PACKED)
    e = from_zero_back(dys, decays, cuts, ROWS, MARKS, PACKED)
    total, e = tl.associative_scan((add_up(logs, cuts, ROWS, MARKS, PACKED), e), 0, joined)
    at = (row * tiles + tile) * width + channels + index[:, None] * 0
    c = incoming_back(tile, tiles, row, at, channels, inside, words, words, dlast, slots, width, CARRY, SLOTS, PACKED)
    final = (index[:, None] == SEGMENTS - 1) & inside
    e = join(total, e, c)
    outgoing_back(e, tile, row, at, channels, final, words, dh0, slots, width, CARRY, SLOTS, PACKED)
    tl.debug_barrier()  # other threads of the program wrote the gates that this one reads
    at_x = pointers(x, x_batch, x_time, row, first, channels)
    at_dx = pointers(dx, time.to(tl.int64) * dx_time, dx_time, row, first, channels)
    at_gates = pointers(dgates, gates_batch, dgates_time, row, first, 2 * head * BLOCK + columns)
    walk_back(
        shifted(e, c, index, SEGMENTS), marked, starting, decays, dys, befores, cuts, at_x, at_gates, at_gates + BLOCK,
        h0, at_dx, at_gates, at_gates + BLOCK, dh0, drate + at, scale, first, channels, inside, final, time, width,
        x_time, dgates_time, dgates_time, dx_time, dgates_time, dgates_time,
        ROWS, AGAIN, WHOLE, MARKS, PACKED, HAS_H0, "gated", BODY,
    )  # fmt: skip
