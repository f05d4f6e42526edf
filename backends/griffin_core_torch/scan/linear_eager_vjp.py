"""linear_scan with plain tensor operations: backward, the mirrored loop."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.scan.linear_eager import decay, linear_scan_forward
from griffin_core_torch.scan.rows import block_rows, marks, scan_backward, time_major


def linear_scan_vjp(
    x: Tensor,
    log_a: Tensor,
    h0: Tensor | None,
    reset: Tensor | None,
    y: Tensor,
    h: Tensor,
    dy: Tensor,
    dh: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None, None]:
    """g_t = dy_t + a_{t+1} g_{t+1}; dx = g, dlog_a = g a h_{t-1}, dh0 = a_0 g_0 (0 at resets, by selection).

    The decays are computed again. States come from ``y``, or from a second float32 scan where y is rounded.
    """
    batch, time, width = x.shape
    wide = accumulate_dtype(x.dtype)
    states = y if y.dtype == wide else linear_scan_forward(x.to(wide), log_a, h0, reset)[0]
    dx, dlog_a = torch.empty_like(y), torch.empty_like(log_a, memory_format=torch.contiguous_format)
    first = x.new_zeros(batch, width, dtype=wide) if h0 is None else h0.to(wide)
    rows = min(block_rows(batch, width), max(time, 1))
    a, g = (torch.empty(rows, batch, width, dtype=wide, device=x.device) for _ in range(2))
    a_rows, resets, carry = a.unbind(0), marks(reset), dh.to(wide)
    for start in reversed(range(0, time, rows)):
        stop = min(start + rows, time)
        a_block = decay(log_a[:, start:stop], a[: stop - start])
        g_block = g[: stop - start]
        g_block.copy_(time_major(dy[:, start:stop]))
        carry = scan_backward(g_block.unbind(0), a_rows, carry, resets, start)
        time_major(dx[:, start:stop]).copy_(g_block)
        a_block.mul_(g_block)
        a_block[1:].mul_(time_major(states[:, start : stop - 1]))
        a_block[0].mul_(states[:, start - 1] if start else first)
        if reset is not None:
            a_block.masked_fill_(time_major(reset[:, start:stop])[..., None], 0.0)
        time_major(dlog_a[:, start:stop]).copy_(a_block)
    return dx, dlog_a, None if h0 is None else carry.to(h0.dtype), None
