"""Walking over time: the inner loop of every eager scan.

Whole rows [b d] are streamed in place, one fused multiply-add each. Narrow channel blocks or tree scans
read memory in strides or many times over, and are several times slower on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 17
"""Elements of one scratch array of a time block (512 KiB of float32), so that a block's arrays stay in cache."""

MARK = Mapping[int, Tensor]
"""Time steps at which some row resets, with the mask bool [b 1] of those rows."""


def block_rows(batch: int, width: int) -> int:
    """Time steps per block."""
    return max(1, BLOCK_ELEMENTS // max(1, batch * width))


def marks(mask: Tensor | None) -> dict[int, Tensor]:
    """Where a mask bool [b t] is set: {t: mask [b 1]}, t as host integers."""
    if mask is None:
        return {}
    return {step: mask[:, step, None] for step in mask.any(dim=0).nonzero().flatten().tolist()}


def time_major(x: Tensor) -> Tensor:
    """[b t d] seen as [t b d]."""
    return x.transpose(0, 1)


def scan_forward(
    u: Sequence[Tensor], a: Sequence[Tensor], out: Sequence[Tensor], h: Tensor, resets: MARK, start: int = 0
) -> Tensor:
    """out_t = u_t + a_t h, with h = out_t carried on; at a reset out_t = u_t by selection.

    Args:
        u, a: rows [b d] of one dtype.
        out: rows to write; they may be the rows of u.
        h: [b d] state before the first row.
        resets: steps, counted from ``start``, whose rows are selected.

    Returns:
        The last row of ``out`` (or ``h`` when there is none).
    """
    addcmul = torch.addcmul
    if not resets:
        for u_t, a_t, o_t in zip(u, a, out, strict=True):
            h = addcmul(u_t, a_t, h, out=o_t)
        return h
    for step, (u_t, a_t, o_t) in enumerate(zip(u, a, out, strict=True), start):
        if step in resets:
            h = o_t.copy_(torch.where(resets[step], u_t, addcmul(u_t, a_t, h)))
        else:
            h = addcmul(u_t, a_t, h, out=o_t)
    return h


def scan_backward(
    dy: Sequence[Tensor], a: Sequence[Tensor], out: Sequence[Tensor], carry: Tensor, resets: MARK, start: int = 0
) -> Tensor:
    """g_t = dy_t + carry, carry = a_t g_t (0 by selection at a reset), from the last row to the first.

    Args:
        dy, a: rows [b d].
        out: rows to write g to; they may be the rows of dy.
        carry: [b d] what reaches the last row from later ones.
        resets: as in ``scan_forward``.

    Returns:
        The gradient with respect to the state before the first row.
    """
    last = len(out) - 1
    if last < 0:
        return carry
    g = torch.add(dy[last], carry, out=out[last])
    addcmul = torch.addcmul
    for i in range(last - 1, -1, -1):
        if resets and start + i + 1 in resets:
            passed = torch.mul(a[i + 1], g).masked_fill_(resets[start + i + 1], 0.0)
            g = torch.add(dy[i], passed, out=out[i])
        else:
            g = addcmul(dy[i], a[i + 1], g, out=out[i])
    carry = torch.mul(a[0], g)
    return carry.masked_fill_(resets[start], 0.0) if resets and start in resets else carry
