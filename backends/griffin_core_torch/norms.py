"""RMSNorm, in cache-sized blocks of rows; the backward pass keeps only the input and one number per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from griffin_core.config import NORM_EPS
from griffin_core_torch.arrays import accumulate_dtype, cache_blocks
from griffin_core_torch.scan.autograd import wants_grad

BLOCK_ELEMENTS = 1 << 17
"""Elements of one block of rows: a few float32 arrays of it fit a core's level-2 cache beside each other."""


def rms_norm(x: Tensor, scale: Tensor, eps: float = NORM_EPS) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * (1 + scale) over the last axis, in float32.

    Args:
        x: [... m] of any floating dtype.
        scale: [m]; 0 is the identity.
        eps: added to the mean square.

    Returns:
        [... m] in x's dtype.
    """
    return _RMSNorm.apply(x, scale, eps) if wants_grad(x, scale) else normalise(x, scale, eps)[0]


def normalise(x: Tensor, scale: Tensor, eps: float, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(y, 1 / rms): the first in x's dtype (and contiguous memory where given), the second [... 1] in float32."""
    wide, factor = accumulate_dtype(x.dtype), scale.to(accumulate_dtype(x.dtype)) + 1.0
    y = torch.empty_like(x, memory_format=torch.contiguous_format) if y is None else y
    inverse = torch.empty(*x.shape[:-1], 1, dtype=wide, device=x.device)
    for block, out, root in zip(_rows(x), _rows(y), _rows(inverse, x.shape[-1]), strict=True):
        block = block.to(wide)
        torch.linalg.vector_norm(block, dim=-1, keepdim=True, out=root)
        root.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        if x.dtype == wide:
            torch.mul(block, root, out=out).mul_(factor)
        else:
            out.copy_(torch.mul(block, root).mul_(factor))
    return y, inverse


def _rows(x: Tensor, width: int | None = None) -> Sequence[Tensor]:
    """x [... m] as rows, cut into blocks that stay in cache (of as many rows as for ``width``)."""
    return cache_blocks(x.reshape(-1, x.shape[-1]), BLOCK_ELEMENTS // (width or x.shape[-1]))


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        y, inverse = normalise(x, scale, eps)
        ctx.save_for_backward(x, scale, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        """dx = (g - unit mean(g unit)) / rms with unit = x / rms and g = dy (1 + scale); dscale = sum dy unit."""
        x, scale, inverse = ctx.saved_tensors
        factor, width = scale.to(inverse.dtype) + 1.0, x.shape[-1]
        dx = torch.empty_like(x, memory_format=torch.contiguous_format)
        dscale = torch.zeros_like(factor)
        for block, g, root, out in zip(_rows(x), _rows(dy), _rows(inverse, width), _rows(dx), strict=True):
            unit = torch.mul(block, root)
            product = torch.mul(unit, g)
            dscale += product.sum(0)
            along = torch.mv(product, factor).div_(-width)[:, None]
            g = torch.mul(g, factor).addcmul_(unit, along).mul_(root)
            out.copy_(g)
        return dx, dscale.to(scale.dtype), None
