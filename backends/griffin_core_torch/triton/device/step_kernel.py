"""One token of the recurrent block's middle for a batch: convolution, both gates and the recurrence in one launch.

A program has some columns of one gate block and some rows of the batch. It needs the convolution at all channels of the
block, which it computes itself: that is w multiplications where the products of the gates are twice the block's width.
The last inputs stand in a ring of w entries, position p in entry p mod w, so that the entry that is written is one that
no program reads.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .cells import enter, load_rate
from .rows import add
from .special import narrow


@triton.jit
def convolved(
    x, weight, bias, ring, position, slot, row, live, channels, inside, width, x_batch,
    TAPS: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """The convolution's output at channels [1, c] for rows [r, 1], rounded to x's dtype."""
    here = live & inside
    seen = here & (position > 0)  # at position 0 a document starts: nothing before it is seen
    offset = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
    current = tl.load(x + row * x_batch + channels, mask=here, other=0.0).to(tl.float32)
    tap = tl.load(weight + channels * TAPS + (TAPS - 1), mask=inside, other=0.0).to(tl.float32)
    value = tl.fma(tap, current, tl.broadcast_to(offset, current.shape))
    for k in tl.static_range(1, TAPS):
        entry = (position + (TAPS - k)) % TAPS
        before = tl.load(ring + (slot * TAPS + entry) * width + channels, mask=seen, other=0.0).to(tl.float32)
        tap = tl.load(weight + channels * TAPS + (TAPS - 1 - k), mask=inside, other=0.0).to(tl.float32)
        value = tl.fma(tap, before, value)
    return narrow(value, x.dtype.element_ty, BODY)


@triton.jit
def gate_products(
    x, conv_weight, conv_bias, ring, position, slot, row, live, weight_x, weight_a, head, local, width, x_batch,
    BLOCK: tl.constexpr, KEYS: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, TAPS: tl.constexpr,
    BODY: tl.constexpr,
):  # fmt: skip
    """Both gates' products without biases, float32 [r, c], over the channels of a block, ``KEYS`` at a time."""
    # The interpreter's products know no bfloat16.
    kind: tl.constexpr = x.dtype.element_ty if BODY == "ptx" or BODY == "hip" else tl.float32
    found_x, found_a = tl.full([ROWS, COLUMNS], 0.0, tl.float32), tl.full([ROWS, COLUMNS], 0.0, tl.float32)
    for start in tl.static_range(0, BLOCK, KEYS):
        keys = start + tl.arange(0, KEYS)
        channels = (head * BLOCK + keys)[None, :]
        z = convolved(
            x, conv_weight, conv_bias, ring, position, slot, row, live, channels, (keys < BLOCK)[None, :], width,
            x_batch, TAPS, BODY,
        )  # fmt: skip
        at = (head * BLOCK + keys)[:, None] * BLOCK + local[None, :]
        inside = (keys < BLOCK)[:, None] & (local < BLOCK)[None, :]
        for_x, for_a = tl.load(weight_x + at, mask=inside, other=0.0), tl.load(weight_a + at, mask=inside, other=0.0)
        if ROWS == 1:
            column = tl.trans(z).to(tl.float32)
            found_x += tl.reduce(column * for_x.to(tl.float32), 0, add)[None, :]
            found_a += tl.reduce(column * for_a.to(tl.float32), 0, add)[None, :]
        else:
            found_x = tl.dot(z.to(kind), for_x.to(kind), found_x, input_precision="ieee")
            found_a = tl.dot(z.to(kind), for_a.to(kind), found_a, input_precision="ieee")
    return found_x, found_a


@triton.jit
def step_kernel(
    x, conv_weight, conv_bias, weight_x, bias_x, weight_a, bias_a, param, h, ring, positions, slots, out,
    batch, width, x_batch, out_batch,
    BLOCK: tl.constexpr, KEYS: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, TAPS: tl.constexpr,
    SLOTS: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """h, ring and out of some rows and columns; arguments as ``step`` gives them."""
    parts: tl.constexpr = (BLOCK + COLUMNS - 1) // COLUMNS
    head, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    index = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    position = tl.load(positions + index, mask=index < batch, other=-1).to(tl.int64)[:, None]
    row = index.to(tl.int64)[:, None]
    slot = tl.load(slots + index, mask=index < batch, other=0).to(tl.int64)[:, None] if SLOTS else row
    live, local = position >= 0, part * COLUMNS + tl.arange(0, COLUMNS)
    gate_x, gate_a = gate_products(
        x, conv_weight, conv_bias, ring, position, slot, row, live, weight_x, weight_a, head, local, width, x_batch,
        BLOCK, KEYS, COLUMNS, ROWS, TAPS, BODY,
    )  # fmt: skip
    inside, channels = (local < BLOCK)[None, :], (head * BLOCK + local)[None, :]
    gate_x += tl.load(bias_x + channels, mask=inside, other=0.0).to(tl.float32)
    gate_a += tl.load(bias_a + channels, mask=inside, other=0.0).to(tl.float32)
    z = convolved(
        x, conv_weight, conv_bias, ring, position, slot, row, live, channels, inside, width, x_batch, TAPS, BODY
    )  # fmt: skip
    rate = load_rate(param, channels, inside, "gated", BODY)
    _, a, fresh, u = enter(z, gate_x, gate_a, rate, "gated", BODY)
    here, at = live & inside, h + slot * width + channels
    before = tl.load(at, mask=here & (position > 0), other=0.0)
    after = tl.where(position == 0, fresh, tl.fma(a, before, u))
    tl.store(at, after, mask=here)
    current = tl.load(x + row * x_batch + channels, mask=here, other=0.0).to(ring.dtype.element_ty)
    for k in tl.static_range(TAPS):
        entry = (position + (TAPS - k)) % TAPS
        value = current if k == 0 else tl.where(position > 0, current, 0.0).to(current.dtype)
        tl.store(ring + (slot * TAPS + entry) * width + channels, value, mask=here & ((position == 0) | (k == 0)))
    value = tl.where(live, after, 0.0)
    tl.store(out + row * out_batch + channels, narrow(value, out.dtype.element_ty, BODY), mask=(row < batch) & inside)
