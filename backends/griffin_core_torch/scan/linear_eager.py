"""linear_scan on the CPU (or any device) with plain tensor operations: forward."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.scan.rows import block_rows, marks, scan_forward, time_major


def linear_scan_forward(
    x: Tensor, log_a: Tensor, h0: Tensor | None = None, reset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """h_t = exp(log_a_t) h_{t-1} + x_t, float32 inside, one time block after another.

    Args:
        x, log_a: [b t d].
        h0: float32 [b d] or None.
        reset: bool [b t] or None.

    Returns:
        (y, h): [b t d] in x's dtype; float32 [b d] (float64 when x is).
    """
    batch, time, width = x.shape
    wide = accumulate_dtype(x.dtype)
    y = torch.empty(batch, time, width, dtype=x.dtype, device=x.device)
    h = x.new_zeros(batch, width, dtype=wide) if h0 is None else h0.to(wide, copy=True)
    rows = min(block_rows(batch, width), max(time, 1))
    scratch = torch.empty(1 if x.dtype == wide else 2, rows, batch, width, dtype=wide, device=x.device)
    resets = marks(reset)
    for start in range(0, time, rows):
        stop = min(start + rows, time)
        a = decay(log_a[:, start:stop], scratch[0, : stop - start])
        x_block, y_block = time_major(x[:, start:stop]), time_major(y[:, start:stop])
        if x.dtype == wide:
            h = scan_forward(x_block, a, y_block, h, resets, start).clone()
        else:
            u = scratch[1, : stop - start].copy_(x_block)
            h = scan_forward(u, a, u, h, resets, start).clone()
            y_block.copy_(u)
    return y, h


def decay(log_a: Tensor, out: Tensor) -> Tensor:
    """exp(log_a) of a block [b c d] into ``out`` [c b d], computed in ``out``'s dtype."""
    log_a = time_major(log_a)
    return torch.exp(log_a, out=out) if log_a.dtype == out.dtype else out.copy_(log_a).exp_()
