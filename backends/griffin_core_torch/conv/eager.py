"""conv1d with plain tensor operations: shift, multiply, accumulate in float32, one time block after another."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.conv.taps import sight, tail
from griffin_core_torch.scan.rows import block_rows


def tap_rows(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """[w d] taps from the canonical weight [d 1 w]; the last row acts on the current token."""
    return weight[:, 0, :].t().to(dtype).contiguous()


def conv1d_forward(
    x: Tensor, weight: Tensor, bias: Tensor, state: Tensor | None = None, positions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y_t = bias + sum_k taps[w-1-k] x_{t-k} over the tokens of t's own document.

    Args:
        x: [b t d].
        weight: [d 1 w].
        bias: [d].
        state: [b w-1 d] inputs before the first, or None for zeros.
        positions: int [b t] or None.

    Returns:
        (y, state): [b t d] and [b w-1 d] in x's dtype.
    """
    batch, time, width = x.shape
    wide = accumulate_dtype(x.dtype)
    taps, offset = tap_rows(weight, wide), bias.to(wide)
    before = x.new_zeros(batch, len(taps) - 1, width) if state is None else state.to(x.dtype)
    seen = sight(positions, len(taps))
    y = torch.empty(batch, time, width, dtype=x.dtype, device=x.device)
    rows = max(len(taps), block_rows(batch, width))
    for start in range(0, time, rows):
        stop = min(start + rows, time)
        block = window(x, before, start, stop).to(wide)  # [b w-1+c d]
        out = y[:, start:stop] if x.dtype == wide else torch.empty_like(block[:, len(taps) - 1 :])
        torch.addcmul(offset, block[:, len(taps) - 1 :], taps[-1], out=out)
        for back in range(1, len(taps)):
            shifted = block[:, len(taps) - 1 - back : block.shape[1] - back]
            hidden = seen.hidden(back, start, stop)
            shifted = shifted if hidden is None else shifted.masked_fill(hidden, 0.0)
            out.addcmul_(shifted, taps[-1 - back])
        if seen.pad is not None:
            out.masked_fill_(seen.pad[:, start:stop, None], 0.0)
        if x.dtype != wide:
            y[:, start:stop] = out
    return y, tail(positions, batch, time, before.shape[1], x.device).gather(x, before)


def window(x: Tensor, before: Tensor, start: int, stop: int) -> Tensor:
    """x[start - (w-1) : stop], with the state standing before time 0."""
    first = start - before.shape[1]
    if first >= 0:
        return x[:, first:stop]
    return torch.cat([before[:, start:], x[:, :stop]], dim=1)
