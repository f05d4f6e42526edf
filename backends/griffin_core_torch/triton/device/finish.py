"""Gradients of parameters from the sums of each tile, in one fixed order."""

from __future__ import annotations

import triton
import triton.language as tl

from .cells import rate_slope
from .rows import add


@triton.jit
def finish_kernel(
    partial, param, out, count, width,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, RATE: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """out[d], the sum over n < count of partial [n d], ``ROWS`` sums side by side.

    ``RATE``: the sum is the gradient of log2 a and becomes that of p, ``recurrent_param``.
    """
    channels = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    inside = channels < width
    index = tl.arange(0, ROWS)
    total = tl.full([ROWS, WIDTH], 0.0, tl.float32)
    for n in range(0, count, ROWS):
        rows = n + index
        at = partial + rows.to(tl.int64)[:, None] * width + channels[None, :]
        total += tl.load(at, mask=(rows < count)[:, None] & inside[None, :], other=0.0)
    found = tl.reduce(total, 0, add)
    if RATE:
        found *= rate_slope(tl.load(param + channels, mask=inside, other=0.0).to(tl.float32), BODY)
    tl.store(out + channels, found, mask=inside)
