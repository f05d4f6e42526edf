"""The convolution's gradients:  dx_t = sum_k tap_k dy_{t+k} [t + k sees t],  dtap_k = sum dy_t s_{t-k}.

``conv_backward_kernel`` does all tokens and sums taps by tile; ``ends_kernel`` then does what touches a state: the
inputs before the first token, and the last ones, which the state that is left holds too.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .conv import load_before, load_locals, load_reaches, load_taps, sources, wide
from .conv_kernel import extent
from .rows import add, load_rows, place, pointers, store_row
from .special import narrow


@triton.jit
def load_after(start, stride: tl.constexpr, first, time, inside, ROWS: tl.constexpr, TAPS: tl.constexpr):
    """The w-1 rows after each segment; 0 after the end of time."""
    rows = ()
    for r in tl.static_range(TAPS - 1):
        mask = (first + (ROWS + r) < time)[:, None] & inside
        rows = rows + (tl.load(start + (ROWS + r) * stride, mask=mask, other=0.0),)
    return rows


@triton.jit
def input_gradient(
    dys, taps, reaches, places, s: tl.constexpr, TAPS: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr
):
    """dx of row ``s``."""
    value = taps[0] * dys[s]
    for k in tl.static_range(1, TAPS):
        later = dys[s + k]
        if PACKED:
            later = tl.where(places[s + k] >= k, later, 0.0)
        if MARKS == "positions":
            later = tl.where(reaches[s + k] >= k, later, 0.0)
        value = tl.fma(taps[k], later, value)
    return value


@triton.jit
def not_padding(dys, reaches, ROWS: tl.constexpr, MARKS: tl.constexpr):
    """dy in float32, 0 at padding."""
    rows = ()
    for s in tl.static_range(ROWS):
        value = dys[s].to(tl.float32)
        if MARKS == "positions":
            value = tl.where(reaches[s] < 0, 0.0, value)
        rows = rows + (value,)
    return rows


@triton.jit
def write_inputs(
    dys, taps, reaches, places, dx, row, first, channels, inside, time, grad_time: tl.constexpr,
    TAPS: tl.constexpr, ROWS: tl.constexpr, WHOLE: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr,
    BODY: tl.constexpr,
):  # fmt: skip
    """dx of all rows."""
    at = pointers(dx, time.to(tl.int64) * grad_time, grad_time, row, first, channels)
    for s in tl.static_range(ROWS):
        value = input_gradient(dys, taps, reaches, places, s, TAPS, MARKS, PACKED)
        store_row(at, grad_time, s, value, first, time, inside, WHOLE, BODY)


@triton.jit
def tap_gradients(
    rows, dys, reaches, places, state, sequences, first, time, channels, inside, width,
    TAPS: tl.constexpr, ROWS: tl.constexpr, MARKS: tl.constexpr, HAS_STATE: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Each segment's sums for the w taps and the bias."""
    totals = ()
    for _ in tl.static_range(TAPS + 1):
        totals = totals + (tl.full(dys[0].shape, 0.0, tl.float32),)
    for s in tl.static_range(ROWS):
        seen = sources(
            rows, reaches, places, state, sequences, first, time, channels, inside, width, s,
            TAPS, MARKS, HAS_STATE, PACKED,
        )  # fmt: skip
        found = ()
        for k in tl.static_range(TAPS):
            found = found + (tl.fma(dys[s], seen[k], totals[k]),)
        totals = found + (totals[TAPS] + dys[s],)
    return totals


@triton.jit
def conv_backward_kernel(
    x, weight, state, marks, local, sequences, slots, dout, dx, partial, batch, time, width, tiles,
    x_batch, dout_batch, x_time: tl.constexpr, dout_time: tl.constexpr, grad_time: tl.constexpr,
    TAPS: tl.constexpr, ROWS: tl.constexpr, SEGMENTS: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr,
    MARKS: tl.constexpr, PACKED: tl.constexpr, HAS_STATE: tl.constexpr, SLOTS: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """dx [b t d] without the states' part, and partial [b tiles w+1 d]: each tile's sums for the taps and the bias."""
    tile, row, channels, index, first = place(x, width, batch, SEGMENTS, ROWS, WIDTH, False)
    inside = channels < width
    start, slot = pointers(x, x_batch, x_time, row, first, channels), row
    if SLOTS:
        slot = tl.load(slots + row).to(tl.int64)
    before = load_before(start, x_time, state, slot, first, time, channels, inside, width, TAPS, HAS_STATE, PACKED)
    rows = before + wide(load_rows(start, x_time, first, time, inside, ROWS, WHOLE, 0.0), ROWS)
    start = pointers(dout, dout_batch, dout_time, row, first, channels)
    dys = load_rows(start, dout_time, first, time, inside, ROWS, WHOLE, 0.0)
    dys = dys + load_after(start, dout_time, first, time, inside, ROWS, TAPS)
    reaches = load_reaches(marks + row * time, local, first, time, ROWS + TAPS - 1, MARKS, PACKED)
    dys = not_padding(dys, reaches, ROWS + TAPS - 1, MARKS)
    places = load_locals(local, first, time, ROWS + TAPS - 1, PACKED)
    taps = load_taps(weight, channels, inside, TAPS)
    write_inputs(
        dys, taps, reaches, places, dx, row, first, channels, inside, time, grad_time,
        TAPS, ROWS, WHOLE, MARKS, PACKED, BODY,
    )  # fmt: skip
    at = partial + ((row * tiles + tile) * (TAPS + 1)) * width + channels + index[:, None] * 0
    totals = tap_gradients(
        rows, dys, reaches, places, state, sequences, first, time, channels, inside, width,
        TAPS, ROWS, MARKS, HAS_STATE, PACKED,
    )  # fmt: skip
    for k in tl.static_range(TAPS + 1):
        total = tl.reduce(totals[k], 0, add)[None, :]
        tl.store(at + k * width, tl.broadcast_to(total, dys[0].shape), mask=(index[:, None] == 0) & inside)


@triton.jit
def ends_kernel(
    weight, starts, marks, slots, dout, dout_state, dx, dstate, time, width, dout_batch,
    dout_time: tl.constexpr, grad_time: tl.constexpr,
    TAPS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr,
    SLOTS: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """The w-1 inputs before each sequence into dstate [slots w-1 d] float32, its last w-1 tokens into dx again."""
    n = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = channels < width
    begin, length, last = extent(starts, marks, n, time, BLOCK, MARKS, PACKED)
    row = n * 0 if PACKED else n
    slot = tl.load(slots + n).to(tl.int64) if SLOTS else n
    taps = load_taps(weight, channels, inside, TAPS)
    for j in tl.static_range(2 * TAPS - 2):
        step = j - (TAPS - 1) + n * 0  # first the inputs before the sequence, then its last tokens
        if j >= TAPS - 1:
            step = length - (2 * TAPS - 2) + j
        value = tl.full([WIDTH], 0.0, tl.float32)
        for k in tl.static_range(TAPS):
            later = (step + k >= 0) & (step + k < length)
            if MARKS == "positions":
                at_mark = (begin if PACKED else n * time) + step + k
                position = tl.load(marks + at_mark, mask=later, other=-1)
                later = later & ((position >= k) | (position > step + k))
            at = dout + row * dout_batch + (begin + step + k) * dout_time + channels
            value = tl.fma(taps[k], tl.load(at, mask=inside & later, other=0.0).to(tl.float32), value)
        entry = step - length + (TAPS - 1)
        kept = inside & (entry >= 0) & (last >= TAPS - 2 - entry)
        at_entry = dout_state + (slot * (TAPS - 1) + entry) * width + channels
        value += tl.load(at_entry, mask=kept, other=0.0).to(tl.float32)
        if j < TAPS - 1:
            tl.store(dstate + (slot * (TAPS - 1) + j) * width + channels, value, mask=inside)
        else:
            at = dx + ((row * time + begin + step) * grad_time) + channels
            tl.store(at, narrow(value, dx.dtype.element_ty, BODY), mask=inside & (step >= 0))
