"""The backward kernel of the RG-LRU, up to its gates' pre-activations; products of whole matrices do the rest.

It computes the gates again and writes them where their gradients will go. On the way back they are read from there, as
``backward`` reads its inputs.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .backward_kernel import run_tile_back
from .gates import block_place, gated_inputs
from .rows import pointers


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
    at_x = pointers(x, x_batch, x_time, row, first, channels)
    at_dx = pointers(dx, time.to(tl.int64) * dx_time, dx_time, row, first, channels)
    at_gates = pointers(dgates, gates_batch, dgates_time, row, first, 2 * head * BLOCK + columns)
    run_tile_back(
        news, news, zs, at_x, at_gates, at_gates + BLOCK, at_dx, at_gates, at_gates + BLOCK, param, h0, marks, begins,
        ends, slots, states, dout, dlast, dh0, drate, words, words, tile, row, channels, inside, index, first, time,
        width, tiles, saved, dout_batch, x_time, dgates_time, dgates_time, dout_time, dx_time, dgates_time, dgates_time,
        ROWS, AGAIN, SEGMENTS, WHOLE, MARKS, PACKED, HAS_H0, SLOTS, "gated", "half", CARRY, BODY,
    )  # fmt: skip
