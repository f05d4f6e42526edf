"""The convolution's kernels: all outputs, and the state that is left (``conv`` says what a token sees)."""

from __future__ import annotations

import triton
import triton.language as tl

from .conv import conv_row, load_before, load_locals, load_reaches, load_taps, wide
from .rows import add, load_rows, place, pointers, store_row


@triton.jit
def conv_kernel(
    x, weight, bias, state, marks, local, sequences, slots, out, batch, time, width, x_batch, out_batch,
    x_time: tl.constexpr, out_time: tl.constexpr,
    TAPS: tl.constexpr, ROWS: tl.constexpr, SEGMENTS: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr,
    MARKS: tl.constexpr, PACKED: tl.constexpr, HAS_STATE: tl.constexpr, SLOTS: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """y [b t d] of one tile; arguments as ``conv_passes`` gives them."""
    _, row, channels, _, first = place(x, width, batch, SEGMENTS, ROWS, WIDTH, False)
    inside = channels < width
    start = pointers(x, x_batch, x_time, row, first, channels)
    slot = tl.load(slots + row).to(tl.int64) if SLOTS else row
    before = load_before(
        start, x_time, state, slot, first, time, channels, inside, width, TAPS, HAS_STATE, PACKED
    )  # fmt: skip
    rows = before + wide(load_rows(start, x_time, first, time, inside, ROWS, WHOLE, 0.0), ROWS)
    reaches = load_reaches(marks + row * time, local, first, time, ROWS, MARKS, PACKED)
    places = load_locals(local, first, time, ROWS, PACKED)
    taps = load_taps(weight, channels, inside, TAPS)
    offset = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
    at = pointers(out, out_batch, out_time, row, first, channels)
    for s in tl.static_range(ROWS):
        value = conv_row(
            rows, taps, offset, reaches, places, state, sequences, first, time, channels, inside, width, s,
            TAPS, MARKS, HAS_STATE, PACKED,
        )  # fmt: skip
        store_row(at, out_time, s, value, first, time, inside, WHOLE, BODY)


@triton.jit
def extent(starts, marks, n, time, BLOCK: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr):
    """(first token in the row's time, real tokens, position of the last real token or ``FAR``) of sequence ``n``."""
    begin, length = n * 0, n * 0 + time
    if PACKED:
        begin = tl.load(starts + n).to(tl.int64)
        length = tl.load(starts + n + 1).to(tl.int64) - begin
    last = length * 0 + (1 << 30)
    if MARKS == "positions":
        at = marks + begin if PACKED else marks + n * time
        total = tl.full([BLOCK], 0, tl.int32)
        for block in range(0, length, BLOCK):
            index = block + tl.arange(0, BLOCK)
            total += (tl.load(at + index, mask=index < length, other=-1) >= 0).to(tl.int32)
        length = tl.reduce(total, 0, add).to(tl.int64)
        last = tl.load(at + length - 1, mask=length > 0, other=1 << 30).to(tl.int64)
        last = tl.where(last > length - 1, 1 << 30, last)
    return begin, length, last


@triton.jit
def tail_kernel(
    x, state, starts, marks, slots, out, time, width, x_batch, x_time: tl.constexpr,
    TAPS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr,
    HAS_STATE: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """out [slots w-1 d]: the last w-1 inputs of each sequence, in x's dtype; 0 before its last document."""
    n = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = channels < width
    begin, length, last = extent(starts, marks, n, time, BLOCK, MARKS, PACKED)
    row = n * 0 if PACKED else n
    slot = tl.load(slots + n).to(tl.int64) if SLOTS else n
    for j in tl.static_range(TAPS - 1):
        step = length - (TAPS - 1) + j
        shown = inside & (last >= TAPS - 2 - j)
        at = x + row * x_batch + (begin + step) * x_time + channels
        value = tl.load(at, mask=shown & (step >= 0), other=0.0)
        if HAS_STATE:
            old = state + (slot * (TAPS - 1) + step + (TAPS - 1)) * width + channels
            value = tl.where(step < 0, tl.load(old, mask=shown & (step < 0), other=0.0).to(value.dtype), value)
        tl.store(out + (slot * (TAPS - 1) + j) * width + channels, value, mask=inside)
