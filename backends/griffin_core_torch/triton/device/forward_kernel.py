"""The forward kernel (``forward`` says how it works)."""

from __future__ import annotations

import triton
import triton.language as tl

from .cells import load_rate
from .chain import publish, receive
from .forward import add_up, advance, entries, from_zero, join, joined, shifted, starts_exact
from .rows import load_inputs, load_marks, load_sequences, place, pointers, store_row


@triton.jit
def incoming(
    tile, row, at, channels, inside, words, states_in, h0, slots, width,
    CARRY: tl.constexpr, HAS_H0: tl.constexpr, SLOTS: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """The state before a tile, [segments, width], the same in each segment."""
    c = tl.full(at.shape, 0.0, tl.float32)
    if CARRY == "given":
        c = tl.load(states_in + at, mask=inside, other=0.0)
    elif tile > 0:
        c = receive(words, at - width, inside)
    elif HAS_H0 and not PACKED:
        slot = tl.load(slots + row).to(tl.int64) if SLOTS else row
        c = tl.load(h0 + slot * width + channels + at * 0, mask=inside, other=0.0)
    return c


@triton.jit
def outgoing(
    c, tile, tiles, row, at, channels, final, words, last, slots, width,
    CARRY: tl.constexpr, SLOTS: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Hand on the state after a tile, which stands where ``final``; after the last tile it is the result."""
    if tile + 1 < tiles:
        if CARRY != "given":
            publish(words, at, c, final)
    elif not PACKED:
        slot = tl.load(slots + row).to(tl.int64) if SLOTS else row
        tl.store(last + slot * width + channels + at * 0, c, mask=final)


@triton.jit
def write(
    h, marked, decays, inputs, cuts, ends, out, last, states, row, first, channels, inside, time, width, saved,
    out_batch, out_time: tl.constexpr, ROWS: tl.constexpr, EVERY: tl.constexpr, WHOLE: tl.constexpr,
    MARKS: tl.constexpr, PACKED: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """Go through each segment from the state ``h`` before it; write its outputs, saved states and last states."""
    start = pointers(out, out_batch, out_time, row, first, channels)
    ending = load_sequences(ends, first, time, ROWS, PACKED)
    for s in tl.static_range(ROWS):
        if EVERY and s % EVERY == 0:
            spot = (row * saved + (first + s) // EVERY)[:, None] * width + channels
            tl.store(states + spot, h, mask=(first + s < time)[:, None] & inside)
        h = advance(h, decays, inputs, cuts, s, MARKS, PACKED)
        value = tl.where(marked[s] < 0, 0.0, h) if MARKS == "positions" else h
        store_row(start, out_time, s, value, first, time, inside, WHOLE, BODY)
        if PACKED:
            end = ending[s].to(tl.int64)[:, None]
            tl.store(last + end * width + channels, h, mask=(end >= 0) & inside)


@triton.jit
def run_tile(
    xs, ys, zs, param, h0, marks, begins, ends, slots, out, last, states, states_in, words, tile, row, channels, inside,
    index, first, time, width, tiles, saved, out_batch, out_time: tl.constexpr,
    ROWS: tl.constexpr, SEGMENTS: tl.constexpr, EVERY: tl.constexpr, WHOLE: tl.constexpr, MARKS: tl.constexpr,
    PACKED: tl.constexpr, HAS_H0: tl.constexpr, SLOTS: tl.constexpr, CELL: tl.constexpr, CARRY: tl.constexpr,
    BODY: tl.constexpr,
):  # fmt: skip
    """The recurrence over a tile whose inputs are there."""
    starting = load_sequences(begins, first, time, ROWS, PACKED)
    marked = load_marks(marks + row * time, starting, first, time, ROWS, MARKS, PACKED)
    scale = load_rate(param, channels, inside, CELL, BODY)
    logs, decays, inputs, cuts = entries(
        xs, ys, zs, marked, starting, h0, channels, inside, scale, width, ROWS, MARKS, PACKED, HAS_H0, CELL, BODY
    )
    at = (row * tiles + tile) * width + channels + index[:, None] * 0
    if CARRY != "exact":
        after = from_zero(decays, inputs, cuts, ROWS, MARKS, PACKED)
        total, after = tl.associative_scan((add_up(logs, cuts, ROWS, MARKS, PACKED), after), 0, joined)
    c = incoming(tile, row, at, channels, inside, words, states_in, h0, slots, width, CARRY, HAS_H0, SLOTS, PACKED)
    if CARRY == "exact":
        h, after = starts_exact(c, index, decays, inputs, cuts, SEGMENTS, ROWS, MARKS, PACKED)
    else:
        after = join(total, after, c)
    final = (index[:, None] == SEGMENTS - 1) & inside
    outgoing(after, tile, tiles, row, at, channels, final, words, last, slots, width, CARRY, SLOTS, PACKED)
    if CARRY != "exact":
        h = shifted(after, c, index, SEGMENTS, False)
    write(
        h, marked, decays, inputs, cuts, ends, out, last, states, row, first, channels, inside, time, width, saved,
        out_batch, out_time, ROWS, EVERY, WHOLE, MARKS, PACKED, BODY,
    )  # fmt: skip


@triton.jit
def forward_kernel(
    x, y, z, param, h0, marks, begins, ends, slots, out, last, states, states_in, words, ticket,
    batch, time, width, tiles, saved, x_batch, y_batch, z_batch, out_batch,
    x_time: tl.constexpr, y_time: tl.constexpr, z_time: tl.constexpr, out_time: tl.constexpr,
    ROWS: tl.constexpr, SEGMENTS: tl.constexpr, WIDTH: tl.constexpr, EVERY: tl.constexpr, WHOLE: tl.constexpr,
    MARKS: tl.constexpr, PACKED: tl.constexpr, HAS_H0: tl.constexpr, SLOTS: tl.constexpr,
    CELL: tl.constexpr, CARRY: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """One tile; arguments as ``passes`` gives them. ``EVERY``: tokens between saved states, or 0; divides ``ROWS``."""
    tile, row, channels, index, first = place(ticket, width, batch, SEGMENTS, ROWS, WIDTH, CARRY != "given")
    inside = channels < width
    xs, ys, zs = load_inputs(
        pointers(x, x_batch, x_time, row, first, channels),
        pointers(y, y_batch, y_time, row, first, channels),
        pointers(z, z_batch, z_time, row, first, channels),
        x_time, y_time, z_time, first, time, inside, ROWS, WHOLE, CELL,
    )  # fmt: skip
    run_tile(
        xs, ys, zs, param, h0, marks, begins, ends, slots, out, last, states, states_in, words, tile, row, channels,
        inside, index, first, time, width, tiles, saved, out_batch, out_time,
        ROWS, SEGMENTS, EVERY, WHOLE, MARKS, PACKED, HAS_H0, SLOTS, CELL, CARRY, BODY,
    )  # fmt: skip
