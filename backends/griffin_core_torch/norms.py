"""RMSNorm and the gated activation of the MLP, with backward passes that save only their inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from griffin_core.config import NORM_EPS
from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.scan.autograd import wants_grad


def rms_norm(x: Tensor, scale: Tensor, eps: float = NORM_EPS) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * (1 + scale) over the last axis, in float32.

    Args:
        x: [... m] of any floating dtype.
        scale: [m]; 0 is the identity.
        eps: added to the mean square.

    Returns:
        [... m] in x's dtype.
    """
    return _RMSNorm.apply(x, scale, eps) if wants_grad(x, scale) else _normalise(x, scale, eps)[0]


def _normalise(x: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    wide = x.to(accumulate_dtype(x.dtype))
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    y = torch.mul(wide, inverse).mul_(scale.to(wide.dtype) + 1.0)
    return y.to(x.dtype), inverse


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        y, inverse = _normalise(x, scale, eps)
        ctx.save_for_backward(x, scale, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, scale, inverse = ctx.saved_tensors
        dy = dy.to(inverse.dtype)
        unit = x.to(inverse.dtype) * inverse
        dscale = torch.mul(dy, unit).flatten(0, -2).sum(0)
        g = dy * (scale.to(inverse.dtype) + 1.0)
        along = torch.linalg.vecdot(g, unit).div_(x.shape[-1])[..., None]
        dx = g.sub_(unit.mul_(along)).mul_(inverse)
        return dx.to(x.dtype), dscale.to(scale.dtype), None


def gelu_product(gate: Tensor, up: Tensor) -> Tensor:
    """gelu_tanh(gate) * up; recomputed in the backward pass. Without a gradient, ``gate`` is overwritten.

    Args:
        gate, up: [... f], owned by the caller.
    """
    if wants_grad(gate, up):
        return _GeluProduct.apply(gate, up)
    return torch.ops.aten.gelu_(gate, approximate="tanh").mul_(up)


class _GeluProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.gelu(gate, approximate="tanh").mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        dup = functional.gelu(gate, approximate="tanh").mul_(dy)
        dgate = torch.ops.aten.gelu_backward(torch.mul(dy, up), gate, approximate="tanh")
        return dgate, dup
