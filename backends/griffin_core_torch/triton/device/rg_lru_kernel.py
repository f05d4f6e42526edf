"""The forward kernel of the RG-LRU with the products of its gates (``gates`` and ``forward`` say how it works)."""

from __future__ import annotations

import triton
import triton.language as tl

from .forward_kernel import run_tile
from .gates import block_place, gated_inputs


@triton.jit
def rg_lru_kernel(
    x, weight_x, bias_x, weight_a, bias_a, param, h0, marks, begins, ends, slots, out, last, states, words, ticket,
    batch, time, width, tiles, saved, x_batch, out_batch, x_time: tl.constexpr, out_time: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, LEVELS: tl.constexpr, SEGMENTS: tl.constexpr, WIDTH: tl.constexpr,
    EVERY: tl.constexpr, WHOLE: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr, HAS_H0: tl.constexpr,
    SLOTS: tl.constexpr, CARRY: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """One tile; arguments as ``rg_lru_passes`` gives them. ``CARRY`` is "aggregate"."""
    tile, row, head, part, index, first = block_place(ticket, width, batch, BLOCK, SEGMENTS, ROWS, WIDTH, True)
    columns = (part * WIDTH + tl.arange(0, WIDTH))[None, :]
    channels, inside = head * BLOCK + columns, columns < BLOCK
    news, zs = gated_inputs(
        x, weight_x, bias_x, weight_a, bias_a, marks + row * time, x, row, head, part, first, time, x_batch, x_batch,
        x_time, x_time, BLOCK, SEGMENTS, ROWS, LEVELS, WIDTH, WHOLE, MARKS, False, BODY,
    )  # fmt: skip
    run_tile(
        news, news, zs, param, h0, marks, begins, ends, slots, out, last, states, words, words, tile, row, channels,
        inside, index, first, time, width, tiles, saved, out_batch, out_time,
        ROWS, SEGMENTS, EVERY, WHOLE, MARKS, PACKED, HAS_H0, SLOTS, "half", CARRY, BODY,
    )  # fmt: skip
