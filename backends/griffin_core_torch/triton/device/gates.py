"""The RG-LRU's gates inside its kernels: products of a block's inputs and weights on matrix units.

A program has some columns of one gate block and reads the block's inputs, as many channels at a time as it has columns;
the gates never reach memory. Their tiles [tokens, width] are taken apart into the rows that the recurrence wants.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .cells import sigmoid
from .rows import load_rows, pointers
from .special import narrow


@triton.jit
def block_place(
    ticket, width, batch, BLOCK: tl.constexpr, SEGMENTS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
    TAKE: tl.constexpr,
):  # fmt: skip
    """``rows.place`` where no program crosses a gate block: instead of channels its block, and which part of it."""
    number = tl.program_id(0)
    if TAKE:
        number = tl.atomic_add(ticket, 1, sem="relaxed").to(tl.int32)
    parts: tl.constexpr = (BLOCK + WIDTH - 1) // WIDTH
    blocks = (width // BLOCK) * parts
    tile = number // (blocks * batch)
    row = (number // blocks) % batch
    head, part = (number % blocks) // parts, number % parts
    index = tl.arange(0, SEGMENTS)
    return tile, row.to(tl.int64), head, part, index, tile * (SEGMENTS * ROWS) + index * ROWS


@triton.jit
def gate_tiles(
    x, weight_x, bias_x, weight_a, bias_a, row, head, part, tokens, time, x_batch, x_time: tl.constexpr,
    BLOCK: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """Both gates' pre-activations, float32 [tokens, width]."""
    # The interpreter's products know no bfloat16.
    kind: tl.constexpr = x.dtype.element_ty if BODY == "ptx" or BODY == "hip" else tl.float32
    parts: tl.constexpr = (BLOCK + WIDTH - 1) // WIDTH
    own = (part * WIDTH + tl.arange(0, WIDTH))[None, :]
    channels, inside = head * BLOCK + own, own < BLOCK
    gate_x = tl.full([TOKENS, WIDTH], 0.0, tl.float32) + tl.load(bias_x + channels, mask=inside, other=0.0).to(
        tl.float32
    )
    gate_a = tl.full([TOKENS, WIDTH], 0.0, tl.float32) + tl.load(bias_a + channels, mask=inside, other=0.0).to(
        tl.float32
    )
    start = x + row * x_batch + tokens.to(tl.int64)[:, None] * x_time + head * BLOCK
    for n in tl.static_range(parts):
        keys = n * WIDTH + tl.arange(0, WIDTH)
        there = (tokens < time)[:, None] & (keys < BLOCK)[None, :]
        tile = tl.load(start + keys[None, :], mask=there, other=0.0).to(kind)
        at, shown = (head * BLOCK + keys)[:, None] * BLOCK + own, (keys < BLOCK)[:, None] & inside
        for_x, for_a = tl.load(weight_x + at, mask=shown, other=0.0), tl.load(weight_a + at, mask=shown, other=0.0)
        gate_x = tl.dot(tile, for_x.to(kind), gate_x, input_precision="ieee")
        gate_a = tl.dot(tile, for_a.to(kind), gate_a, input_precision="ieee")
    return gate_x, gate_a


@triton.jit
def tokens_of(first, SEGMENTS: tl.constexpr, ROWS: tl.constexpr):
    """The tokens of a tile, int32 [segments * rows]."""
    return tl.reshape(first[:, None] + tl.arange(0, ROWS)[None, :], [SEGMENTS * ROWS])


@triton.jit
def stay(gate_a, marks, tokens, time, WHOLE: tl.constexpr, MARKS: tl.constexpr):
    """The recurrence gate, where there is no token, or padding, such that the state stays."""
    if MARKS == "positions":
        mark = tl.load(marks + tokens, mask=tokens < time, other=-1)
        gate_a = tl.where((mark >= 0)[:, None], gate_a, float("-inf"))
    elif not WHOLE:
        gate_a = tl.where((tokens < time)[:, None], gate_a, float("-inf"))
    return gate_a


@triton.jit
def unstacked(tile, SEGMENTS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, LEVELS: tl.constexpr):
    """A tile [segments * rows, width] as a tuple of ``ROWS`` = 2^LEVELS rows [segments, width]."""
    rows = (tl.permute(tl.reshape(tile, [SEGMENTS, ROWS, WIDTH]), [0, 2, 1]),)
    for level in tl.static_range(LEVELS):
        low, high = (), ()
        for n in tl.static_range(1 << level):
            pair = tl.split(tl.reshape(rows[n], [SEGMENTS, WIDTH, ROWS >> (level + 1), 2]))
            low, high = low + (pair[0],), high + (pair[1],)
        rows = low + high
    found = ()
    for s in tl.static_range(ROWS):
        found = found + (tl.reshape(rows[s], [SEGMENTS, WIDTH]),)
    return found


@triton.jit
def entering(
    xs, gate_x, SEGMENTS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, LEVELS: tl.constexpr,
    BODY: tl.constexpr,
):  # fmt: skip
    """Rows of what enters the recurrence before its multiplier, float32."""
    ys = unstacked(gate_x, SEGMENTS, ROWS, WIDTH, LEVELS)
    rows = ()
    for s in tl.static_range(ROWS):
        rows = rows + (sigmoid(ys[s], BODY) * xs[s].to(tl.float32),)
    return rows


@triton.jit
def gated_inputs(
    x, weight_x, bias_x, weight_a, bias_a, marks, gates, row, head, part, first, time, x_batch, gates_batch,
    x_time: tl.constexpr, gates_time: tl.constexpr, BLOCK: tl.constexpr, SEGMENTS: tl.constexpr, ROWS: tl.constexpr,
    LEVELS: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr, MARKS: tl.constexpr, KEEP: tl.constexpr,
    BODY: tl.constexpr,
):  # fmt: skip
    """``entering`` and the rows of the recurrence gate, float32.

    ``KEEP``: the gates are also written, to ``gates`` [b t h 2k] in its dtype: of each block gate_x, then gate_a.
    """
    tokens = tokens_of(first, SEGMENTS, ROWS)
    gate_x, gate_a = gate_tiles(
        x, weight_x, bias_x, weight_a, bias_a, row, head, part, tokens, time, x_batch, x_time,
        BLOCK, SEGMENTS * ROWS, WIDTH, BODY,
    )  # fmt: skip
    own = (part * WIDTH + tl.arange(0, WIDTH))[None, :]
    if KEEP:
        there = (tokens < time)[:, None] & (own < BLOCK)
        at = gates + row * gates_batch + tokens.to(tl.int64)[:, None] * gates_time + 2 * head * BLOCK + own
        tl.store(at, narrow(gate_x, gates.dtype.element_ty, BODY), mask=there)
        tl.store(at + BLOCK, narrow(gate_a, gates.dtype.element_ty, BODY), mask=there)
    start = pointers(x, x_batch, x_time, row, first, head * BLOCK + own)
    xs = load_rows(start, x_time, first, time, own < BLOCK, ROWS, WHOLE, 0.0)
    news = entering(xs, gate_x, SEGMENTS, ROWS, WIDTH, LEVELS, BODY)
    gate_a = stay(gate_a, marks, tokens, time, WHOLE, MARKS)
    return news, unstacked(gate_a, SEGMENTS, ROWS, WIDTH, LEVELS)
