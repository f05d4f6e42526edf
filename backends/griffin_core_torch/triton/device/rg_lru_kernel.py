"""The forward kernel of the RG-LRU with the products of its gates (``gates`` and ``forward`` say how it works)."""

from __future__ import annotations

import triton
import triton.language as tl

from .cells import load_rate
from .forward import add_up, entries, from_zero, join, joined, shifted
from .forward_kernel import incoming, outgoing, write
from .gates import block_place, gated_inputs
from .rows import load_marks, load_sequences


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
    starting = load_sequences(begins, first, time, ROWS, PACKED)
    marked = load_marks(marks + row * time, starting, first, time, ROWS, MARKS, PACKED)
    scale = load_rate(param, channels, inside, "gated", BODY)
    logs, decays, inputs, cuts = entries(
        news, news, zs, marked, starting, h0, channels, inside, scale, width, ROWS, MARKS, PACKED, HAS_H0, "half", BODY
    )
    at = (row * tiles + tile) * width + channels + index[:, None] * 0
    after = from_zero(decays, inputs, cuts, ROWS, MARKS, PACKED)
    total, after = tl.associative_scan((add_up(logs, cuts, ROWS, MARKS, PACKED), after), 0, joined)
    c = incoming(tile, row, at, channels, inside, words, words, h0, slots, width, CARRY, HAS_H0, SLOTS, PACKED)
    after = join(total, after, c)
    final = (index[:, None] == SEGMENTS - 1) & inside
    outgoing(after, tile, tiles, row, at, channels, final, words, last, slots, width, CARRY, SLOTS, PACKED)
    write(
        shifted(after, c, index, SEGMENTS), marked, decays, inputs, cuts, ends, out, last, states, row, first, channels,
        inside, time, width, saved, out_batch, out_time, ROWS, EVERY, WHOLE, MARKS, PACKED, BODY,
    )  # fmt: skip
