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

BLOCK_ELEMENTS = 1 << 18
"""Elements of one scratch array of a time block (1 MiB of float32): a block's arrays stay in the shared cache, and
starting an operation on one costs little beside running it."""

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


def scan_forward(u: Tensor, a: Tensor, y: Tensor, h: Tensor, resets: MARK, start: int = 0) -> Tensor:
    """y_t = u_t + a_t h, with h = y_t carried on; at a reset y_t = u_t, by selection.

    Args:
        u, a: [c b d] of one dtype; ``a`` may be overwritten.
        y: [c b d], written; it may be ``u``.
        h: [b d] state before the first row.
        resets: steps at which some row resets; the first row of ``u`` is step ``start``.

    Returns:
        The last row of ``y`` (or ``h`` when there is none).
    """
    masks = [resets.get(step) for step in range(start, start + len(u))] if resets else []
    if any(mask is not None for mask in masks):
        for u_t, a_t, y_t, mask in zip(u.unbind(0), a.unbind(0), y.unbind(0), masks, strict=True):
            if mask is None:
                h = torch.addcmul(u_t, a_t, h, out=y_t)
            else:
                h = torch.where(mask, u_t, torch.addcmul(u_t, a_t, h), out=y_t)
        return h
    lanes = math.isqrt(len(u)) if h.numel() <= LANE_ELEMENTS else 1
    if lanes > 2:
        stop = len(u) - len(u) % lanes
        lane, decay = (y if y is u else y.copy_(u))[:stop], a[:stop]
        h = _scan_lanes(lane.unflatten(0, (lanes, -1)), decay.unflatten(0, (lanes, -1)), h)
        u, a, y = u[stop:], a[stop:], y[stop:]
    for u_t, a_t, y_t in zip(u.unbind(0), a.unbind(0), y.unbind(0), strict=True):
        h = torch.addcmul(u_t, a_t, h, out=y_t)
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
