"""Rotary positions, by adding angles from two float64-made tables (``griffin_core.rotary``)."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from griffin_core.rotary import RADIX, rotary_tables
from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.scan.autograd import wants_grad
from griffin_core_torch.tracing import settled_when_traced

Angles = tuple[Tensor, Tensor]
"""(cos, sin), float32 [b t e/4]."""


@settled_when_traced
def _tables(head_dim: int, device: str) -> tuple[Tensor, Tensor]:
    return _made_tables(head_dim, device)


@functools.lru_cache(maxsize=16)
def _made_tables(head_dim: int, device: str) -> tuple[Tensor, Tensor]:
    coarse, fine = rotary_tables(head_dim)
    return torch.tensor(coarse, device=device), torch.tensor(fine, device=device)


def angles(positions: Tensor, head_dim: int) -> Angles:
    """Cosines and sines of position * frequency for int [b t] positions (padding counts as 0)."""
    coarse, fine = _tables(head_dim, str(positions.device))
    place = positions.clamp_min(0).long()
    big, small = coarse[place // RADIX], fine[place % RADIX]  # [b t 2 e/4]
    (cos_big, sin_big), (cos, sin) = big.unbind(-2), small.unbind(-2)
    return cos_big * cos - sin_big * sin, sin_big * cos + cos_big * sin


def rotate(x: Tensor, turn: Angles) -> Tensor:
    """The first half of each head rotated, in split-half pairs (i, i + e/4).

    Args:
        x: [b t e] or [b t n e].
        turn: from ``angles`` of the same tokens.

    Returns:
        The shape and dtype of x.
    """
    cos, sin = turn
    if x.ndim == 4:
        cos, sin = cos[:, :, None], sin[:, :, None]
    return _Rotate.apply(x, cos, sin) if wants_grad(x) else _turn(x, cos, sin)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    quarter = x.shape[-1] // 4
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    out[..., 2 * quarter :] = x[..., 2 * quarter :]
    wide = accumulate_dtype(x.dtype)
    first, second = x[..., :quarter].to(wide), x[..., quarter : 2 * quarter].to(wide)
    out[..., :quarter] = torch.mul(first, cos).addcmul_(second, sin, value=-1.0)
    out[..., quarter : 2 * quarter] = torch.mul(second, cos).addcmul_(first, sin)
    return out


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(dy, cos, -sin), None, None
