"""Moving padding to the ends of rows, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin_core.checks import PAD


def compaction(positions: Tensor) -> Tensor | None:
    """int64 [b t]: the order that moves each row's padding to its end; None when it already stands there."""
    pad = positions == PAD
    if positions.device.type == "cpu" and not bool((pad[:, :-1] & ~pad[:, 1:]).any()):
        return None
    return torch.argsort(pad.to(torch.uint8), dim=1, stable=True)


def gather_time(x: Tensor, order: Tensor) -> Tensor:
    """x [b t ...] with each row's tokens in ``order``."""
    return x.gather(1, _expand(order, x))


def scatter_time(x: Tensor, order: Tensor) -> Tensor:
    """The inverse of ``gather_time``."""
    inverse = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return x.gather(1, _expand(inverse, x))


def _expand(order: Tensor, x: Tensor) -> Tensor:
    return order.reshape(*order.shape, *(1,) * (x.ndim - 2)).expand_as(x)
