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


def scan_forward(u: Sequence[Tensor], a: Sequence[Tensor], h: Tensor, resets: MARK, start: int = 0) -> Tensor:
    """u_t += a_t h, with h = u_t carried on, in place; at a reset u_t stays as it is, by selection.

    Args:
        u, a: rows [b d] of one dtype; ``a`` may have more of them.
        h: [b d] state before the first row.
        resets: steps at which some row resets; the first row of ``u`` is step ``start``.

    Returns:
        The last row of ``u`` (or ``h`` when there is none).
    """
    if not any(start <= step < start + len(u) for step in resets):
        for u_t, a_t in zip(u, a, strict=False):
            h = u_t.addcmul_(a_t, h)
        return h
    for step, (u_t, a_t) in enumerate(zip(u, a, strict=False), start):
        mask = resets.get(step)
        passed = torch.addcmul(u_t, a_t, h) if mask is not None else None
        h = u_t.addcmul_(a_t, h) if passed is None else u_t.copy_(torch.where(mask, u_t, passed))
    return h


def scan_backward(g: Sequence[Tensor], a: Sequence[Tensor], carry: Tensor, resets: MARK, start: int = 0) -> Tensor:
    """g_t += carry, carry = a_t g_t (0 by selection at a reset), from the last row to the first, in place.

    Args:
        g, a: rows [b d]; ``a`` may have more of them.
        carry: [b d] what reaches the last row from later ones.
        resets, start: as in ``scan_forward``.

    Returns:
        The gradient with respect to the state before the first row.
    """
    last = len(g) - 1
    if last < 0:
        return carry
    later = g[last].add_(carry)
    for i in range(last - 1, -1, -1):
        mask = resets.get(start + i + 1) if resets else None
        if mask is None:
            later = g[i].addcmul_(a[i + 1], later)
        else:
            later = g[i].add_(torch.mul(a[i + 1], later).masked_fill_(mask, 0.0))
    carry = torch.mul(a[0], later)
    mask = resets.get(start)
    return carry if mask is None else carry.masked_fill_(mask, 0.0)
