"""Walking over time: the inner loop of every eager scan.

Whole rows [b d] are streamed in place, one fused multiply-add each. Narrow channel blocks or tree scans
read memory in strides or many times over, and are several times slower on a CPU. Where rows are so short that
starting an operation costs more than running it, several stretches of time are walked side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 17
"""Elements of one scratch array of a time block (512 KiB of float32), so that a block's arrays stay in cache."""

LANE_ELEMENTS = 1 << 12
"""Rows of at most so many elements are walked in lanes."""

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


def scan_forward(u: Tensor, a: Tensor, h: Tensor, resets: MARK, start: int = 0) -> Tensor:
    """u_t += a_t h, with h = u_t carried on, in place; at a reset u_t stays as it is, by selection.

    Args:
        u, a: [c b d] of one dtype; ``a`` may be overwritten.
        h: [b d] state before the first row.
        resets: steps at which some row resets; the first row of ``u`` is step ``start``.

    Returns:
        The last row of ``u`` (or ``h`` when there is none).
    """
    if not any(start <= step < start + len(u) for step in resets):
        lanes = math.isqrt(len(u)) if h.numel() <= LANE_ELEMENTS else 1
        if lanes > 2:
            stop = len(u) - len(u) % lanes
            h = _scan_lanes(u[:stop].unflatten(0, (lanes, -1)), a[:stop].unflatten(0, (lanes, -1)), h)
            u, a = u[stop:], a[stop:]
        for u_t, a_t in zip(u.unbind(0), a.unbind(0), strict=True):
            h = u_t.addcmul_(a_t, h)
        return h
    for step, (u_t, a_t) in enumerate(zip(u.unbind(0), a.unbind(0), strict=True), start):
        mask = resets.get(step)
        passed = torch.addcmul(u_t, a_t, h) if mask is not None else None
        h = u_t.addcmul_(a_t, h) if passed is None else u_t.copy_(torch.where(mask, u_t, passed))
    return h


def _scan_lanes(u: Tensor, a: Tensor, h: Tensor) -> Tensor:
    """The scan of stretches of time [lanes c b d]: each from nothing, then with what the one before it leaves."""
    u_rows, a_rows = u.unbind(1), a.unbind(1)
    for before, (u_t, a_t) in enumerate(zip(u_rows[1:], a_rows[1:], strict=True)):
        u_t.addcmul_(a_t, u_rows[before])
        a_t.mul_(a_rows[before])  # the decay since the lane began
    entering = torch.empty_like(a_rows[-1])
    for into, left, decay in zip(entering.unbind(0), u_rows[-1].unbind(0), a_rows[-1].unbind(0), strict=True):
        h = torch.addcmul(left, decay, into.copy_(h))
    u.addcmul_(a, entering[:, None])
    return u[-1, -1]


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
