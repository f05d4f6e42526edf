"""The backward kernel (``backward`` says how it works)."""

from __future__ import annotations

import triton
import triton.language as tl

from .backward import cotangents, from_zero_back, retreat, row_gradients, states_before
from .cells import load_rate
from .chain import publish, receive
from .forward import add_up, entries, join, joined, shifted
from .rows import add, load_inputs, load_marks, load_rows, load_sequences, place, pointers, store_row


@triton.jit
def incoming_back(
    tile, tiles, row, at, channels, inside, words, given, dlast, slots, width,
    CARRY: tl.constexpr, SLOTS: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """e after a tile, [segments, width], the same in each segment."""
    e = tl.full(at.shape, 0.0, tl.float32)
    if CARRY == "given":
        e = tl.load(given + at, mask=inside, other=0.0)
    elif tile + 1 < tiles:
        e = receive(words, at + width, inside)
    elif not PACKED:
        slot = tl.load(slots + row).to(tl.int64) if SLOTS else row
        e = tl.load(dlast + slot * width + channels + at * 0, mask=inside, other=0.0)
    return e


@triton.jit
def outgoing_back(
    e, tile, row, at, channels, final, words, dh0, slots, width,
    CARRY: tl.constexpr, SLOTS: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Hand on e before a tile, which stands where ``final``; before the first it is the first state's gradient."""
    if tile > 0:
        if CARRY != "given":
            publish(words, at, e, final)
    elif not PACKED:
        slot = tl.load(slots + row).to(tl.int64) if SLOTS else row
        tl.store(dh0 + slot * width + channels + at * 0, e, mask=final)


@triton.jit
def walk_back(
    e, marked, starting, decays, dys, befores, cuts, at_x, at_y, at_z, h0, at_dx, at_dy, at_dz, dh0, at_drate,
    scale, first, channels, inside, final, time, width, x_time: tl.constexpr, y_time: tl.constexpr,
    z_time: tl.constexpr, dx_time: tl.constexpr, dy_time: tl.constexpr, dz_time: tl.constexpr,
    ROWS: tl.constexpr, AGAIN: tl.constexpr, WHOLE: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr,
    HAS_H0: tl.constexpr, CELL: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """Go back through each segment from ``e`` after it; write the gradients of the inputs and of the rate."""
    total = tl.full(decays[0].shape, 0.0, tl.float32)
    for s in tl.static_range(ROWS - 1, -1, -1):
        if s % AGAIN == AGAIN - 1:
            xs, ys, zs = load_inputs(
                at_x + (s + 1 - AGAIN) * x_time, at_y + (s + 1 - AGAIN) * y_time, at_z + (s + 1 - AGAIN) * z_time,
                x_time, y_time, z_time, first + (s + 1 - AGAIN), time, inside, AGAIN, WHOLE, CELL,
            )  # fmt: skip
        g = dys[s] + e
        begin = starting[s][:, None] if PACKED else marked[s]
        found = row_gradients(
            xs[s % AGAIN], ys[s % AGAIN], zs[s % AGAIN], marked[s], begin, h0, channels, inside, scale, width,
            decays[s], g, befores[s], s, MARKS, PACKED, HAS_H0, CELL, BODY,
        )  # fmt: skip
        if PACKED:
            passed = tl.where(marked[s] == 0, 0.0, decays[s] * g)
            tl.store(dh0 + begin.to(tl.int64) * width + channels, passed, mask=(begin >= 0) & inside)
        e = retreat(g, decays, cuts, s, MARKS, PACKED)
        total += found[3]
        store_row(at_dx, dx_time, s, found[0], first, time, inside, WHOLE, BODY)
        if CELL != "linear":
            store_row(at_dy, dy_time, s, found[1], first, time, inside, WHOLE, BODY)
        store_row(at_dz, dz_time, s, found[2], first, time, inside, WHOLE, BODY)
    if CELL != "linear":
        total = tl.reduce(total, 0, add)[None, :]
        tl.store(at_drate, tl.broadcast_to(total, e.shape), mask=final)


@triton.jit
def run_tile_back(
    xs, ys, zs, at_x, at_y, at_z, at_dx, at_dy, at_dz, param, h0, marks, begins, ends, slots, states, dout, dlast, dh0,
    drate, given, words, tile, row, channels, inside, index, first, time, width, tiles, saved, dout_batch,
    x_time: tl.constexpr, y_time: tl.constexpr, z_time: tl.constexpr, dout_time: tl.constexpr, dx_time: tl.constexpr,
    dy_time: tl.constexpr, dz_time: tl.constexpr, ROWS: tl.constexpr, AGAIN: tl.constexpr, SEGMENTS: tl.constexpr,
    WHOLE: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr, HAS_H0: tl.constexpr, SLOTS: tl.constexpr,
    CELL: tl.constexpr, ENTRY: tl.constexpr, CARRY: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """Back over a tile whose inputs are there, as ``ENTRY`` takes them; they are read again from ``at_x``, ..."""
    dys = load_rows(
        pointers(dout, dout_batch, dout_time, row, first, channels), dout_time, first, time, inside, ROWS, WHOLE, 0.0
    )  # fmt: skip
    starting = load_sequences(begins, first, time, ROWS, PACKED)
    marked = load_marks(marks + row * time, starting, first, time, ROWS, MARKS, PACKED)
    scale = load_rate(param, channels, inside, CELL, BODY)
    logs, decays, inputs, cuts = entries(
        xs, ys, zs, marked, starting, h0, channels, inside, scale, width, ROWS, MARKS, PACKED, HAS_H0, ENTRY, BODY
    )
    spot = states + (row * saved + first // ROWS)[:, None] * width + channels
    befores = states_before(spot, first, time, inside, decays, inputs, cuts, ROWS, MARKS, PACKED)
    dys = cotangents(dys, marked, ends, dlast, first, time, channels, inside, width, ROWS, MARKS, PACKED)
    e = from_zero_back(dys, decays, cuts, ROWS, MARKS, PACKED)
    total, e = tl.associative_scan((add_up(logs, cuts, ROWS, MARKS, PACKED), e), 0, joined)
    at = (row * tiles + tile) * width + channels + index[:, None] * 0
    c = incoming_back(tile, tiles, row, at, channels, inside, words, given, dlast, slots, width, CARRY, SLOTS, PACKED)
    final = (index[:, None] == SEGMENTS - 1) & inside
    e = join(total, e, c)
    outgoing_back(e, tile, row, at, channels, final, words, dh0, slots, width, CARRY, SLOTS, PACKED)
    if ENTRY != CELL:
        tl.debug_barrier()  # other threads of the program wrote the inputs that this one reads again
    walk_back(
        shifted(e, c, index, SEGMENTS, CELL != "linear"), marked, starting, decays, dys, befores, cuts,
        at_x, at_y, at_z, h0, at_dx, at_dy, at_dz, dh0, drate + at, scale, first, channels, inside, final, time, width,
        x_time, y_time, z_time, dx_time, dy_time, dz_time,
        ROWS, AGAIN, WHOLE, MARKS, PACKED, HAS_H0, CELL, BODY,
    )  # fmt: skip


@triton.jit
def backward_kernel(
    x, y, z, param, h0, marks, begins, ends, slots, states, dout, dlast, dx, dy, dz, dh0, drate, given, words, ticket,
    batch, time, width, tiles, saved, x_batch, y_batch, z_batch, dout_batch,
    x_time: tl.constexpr, y_time: tl.constexpr, z_time: tl.constexpr, dout_time: tl.constexpr, grad_time: tl.constexpr,
    ROWS: tl.constexpr, AGAIN: tl.constexpr, SEGMENTS: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr,
    MARKS: tl.constexpr, PACKED: tl.constexpr, HAS_H0: tl.constexpr, SLOTS: tl.constexpr,
    CELL: tl.constexpr, CARRY: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """One tile; arguments as ``passes`` gives them. ``AGAIN``: rows read again at a time; ``grad_time``: as x_time."""
    number, row, channels, index, _ = place(ticket, width, batch, SEGMENTS, ROWS, WIDTH, CARRY != "given")
    tile = tiles - 1 - number
    first = tile * (SEGMENTS * ROWS) + (SEGMENTS - 1 - index) * ROWS
    inside = channels < width
    at_x = pointers(x, x_batch, x_time, row, first, channels)
    at_y = pointers(y, y_batch, y_time, row, first, channels)
    at_z = pointers(z, z_batch, z_time, row, first, channels)
    xs, ys, zs = load_inputs(at_x, at_y, at_z, x_time, y_time, z_time, first, time, inside, ROWS, WHOLE, CELL)
    stride = time.to(tl.int64) * grad_time
    at_dx = pointers(dx, stride, grad_time, row, first, channels)
    at_dy = pointers(dy, stride, grad_time, row, first, channels)
    at_dz = pointers(dz, stride, grad_time, row, first, channels)
    run_tile_back(
        xs, ys, zs, at_x, at_y, at_z, at_dx, at_dy, at_dz, param, h0, marks, begins, ends, slots, states, dout, dlast,
        dh0, drate, given, words, tile, row, channels, inside, index, first, time, width, tiles, saved, dout_batch,
        x_time, y_time, z_time, dout_time, grad_time, grad_time, grad_time,
        ROWS, AGAIN, SEGMENTS, WHOLE, MARKS, PACKED, HAS_H0, SLOTS, CELL, CELL, CARRY, BODY,
    )  # fmt: skip
