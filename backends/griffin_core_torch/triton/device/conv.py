"""What one token of the depthwise convolution sees, for rows of tokens:  y_t = bias + sum_k tap_k s_{t-k},  k < w.

s_{t-k} is the input k tokens earlier in t's own sequence, or an entry of the state where the sequence began later than
that, or 0 where t's document did. A token's ``reach`` is the largest k that it sees: its position, or ``FAR`` where
the document began before the sequence, or -1 at padding.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_taps(weight, channels, inside, TAPS: tl.constexpr):
    """tap_k float32 [1, width] for k = 0 .. w-1, from weight [d 1 w], whose last column is k = 0."""
    taps = ()
    for k in tl.static_range(TAPS):
        at = weight + channels * TAPS + (TAPS - 1 - k)
        taps = taps + (tl.load(at, mask=inside, other=0.0).to(tl.float32),)
    return taps


@triton.jit
def load_reaches(marks, local, first, time, ROWS: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr):
    """The reach of ``ROWS`` tokens from ``first`` on, int32 [segments, 1] each; -1 after the end of time.

    Without ``MARKS`` nothing is read: every token reaches as far as there are taps.
    """
    rows = ()
    for s in tl.static_range(ROWS):
        found = tl.where(first + s < time, 1 << 30, -1)
        if MARKS == "positions":
            position = tl.load(marks + first + s, mask=first + s < time, other=-1)
            step = first + s
            if PACKED:
                step = tl.load(local + first + s, mask=first + s < time, other=0)
            found = tl.where(position > step, 1 << 30, position)
        rows = rows + (found[:, None],)
    return rows


@triton.jit
def load_locals(local, first, time, ROWS: tl.constexpr, PACKED: tl.constexpr):
    """Each token's place in its packed sequence, int32 [segments, 1]."""
    rows = ()
    for s in tl.static_range(ROWS):
        if PACKED:
            rows = rows + (tl.load(local + first + s, mask=first + s < time, other=0)[:, None],)
    return rows


@triton.jit
def load_before(
    start, stride, state, slot, first, time, channels, inside, width,
    TAPS: tl.constexpr, HAS_STATE: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """The w-1 inputs before each segment, oldest first, float32 [segments, width]; before time 0 from the state.

    Args:
        start: pointers [segments, width] to each segment's first token.
        state: [slots w-1 d]; ``slot``: the row of it that stands before time 0.
    """
    rows = ()
    for r in tl.static_range(TAPS - 1):
        step = first - (TAPS - 1) + r
        found = tl.load(
            start - (TAPS - 1 - r) * stride, mask=((step >= 0) & (step < time))[:, None] & inside, other=0.0
        )
        found = found.to(tl.float32)
        if HAS_STATE and not PACKED:
            at = state + (slot * (TAPS - 1) + step.to(tl.int64) + (TAPS - 1))[:, None] * width + channels
            found += tl.load(at, mask=(step < 0)[:, None] & inside, other=0.0).to(tl.float32)
        rows = rows + (found,)
    return rows


@triton.jit
def sources(
    rows, reaches, places, state, sequences, first, time, channels, inside, width, s: tl.constexpr,
    TAPS: tl.constexpr, MARKS: tl.constexpr, HAS_STATE: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """s_{t-k} for k = 0 .. w-1 of token ``s`` of each segment; ``rows`` begin w-1 tokens before the segment."""
    found = ()
    slot = 0
    if PACKED and HAS_STATE:
        slot = tl.load(sequences + first + s, mask=first + s < time, other=0).to(tl.int64)[:, None]
    for k in tl.static_range(TAPS):
        value = rows[s + TAPS - 1 - k]
        if PACKED and k:
            before = places[s] < k
            value = tl.where(before, 0.0, value)
            if HAS_STATE:
                at = state + (slot * (TAPS - 1) + places[s] + (TAPS - 1 - k)) * width + channels
                value += tl.load(at, mask=before & inside, other=0.0).to(tl.float32)
        if MARKS == "positions":
            value = tl.where(reaches[s] >= k, value, 0.0)
        found = found + (value,)
    return found


@triton.jit
def conv_row(
    rows, taps, offset, reaches, places, state, sequences, first, time, channels, inside, width, s: tl.constexpr,
    TAPS: tl.constexpr, MARKS: tl.constexpr, HAS_STATE: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """The output at token ``s`` of each segment in float32, 0 at padding; ``offset`` [1, width] is the bias."""
    seen = sources(
        rows, reaches, places, state, sequences, first, time, channels, inside, width, s,
        TAPS, MARKS, HAS_STATE, PACKED,
    )  # fmt: skip
    value = tl.fma(taps[0], seen[0], tl.broadcast_to(offset, seen[0].shape))
    for k in tl.static_range(1, TAPS):
        value = tl.fma(taps[k], seen[k], value)
    if MARKS == "positions":
        value = tl.where(reaches[s] < 0, 0.0, value)
    return value


@triton.jit
def wide(rows, ROWS: tl.constexpr):
    """Rows in float32."""
    found = ()
    for s in tl.static_range(ROWS):
        found = found + (rows[s].to(tl.float32),)
    return found
