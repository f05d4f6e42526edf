"""gelu_tanh(gate) * up: in cache-sized blocks, recomputed in the backward pass.

PyTorch's own tanh GELU costs as much as fourteen multiplications of the same array; a sigmoid and a few
multiplications on a block that stays in cache cost half of that, and its gradient likewise.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from griffin_core_torch.arrays import cache_blocks
from griffin_core_torch.scan.autograd import wants_grad

BLOCK_ELEMENTS = 1 << 17
"""Elements of one block: large enough that starting an operation costs little beside running it, and small enough
that three float32 arrays of it fit two cores' level-2 caches."""
_K = math.sqrt(2.0 / math.pi)
_C = 0.044715
_WIDE = (torch.float32, torch.float64)


def gelu_product(gate: Tensor, up: Tensor, gate_bias: Tensor | None = None, up_bias: Tensor | None = None) -> Tensor:
    """gelu_tanh(gate + gate_bias) * (up + up_bias). Without a gradient, ``gate`` is overwritten and returned.

    Args:
        gate, up: [... f] of one dtype, owned by the caller; overwritten where they have a bias.
        gate_bias, up_bias: [f], where a product left them to be added.
    """
    if wants_grad(gate, up):
        gate, up = (x if bias is None else x + bias for x, bias in ((gate, gate_bias), (up, up_bias)))
        return _GeluProduct.apply(gate, up)
    if gate.dtype not in _WIDE or not (gate.is_contiguous() and up.is_contiguous()):
        gate, up = (x if bias is None else x.add_(bias) for x, bias in ((gate, gate_bias), (up, up_bias)))
        return torch.ops.aten.gelu_(gate, approximate="tanh").mul_(up)
    return _product(gate, up, gate, gate_bias, up_bias)


@functools.lru_cache(maxsize=4)
def _constant(dtype: torch.dtype, device: torch.device, value: float) -> Tensor:
    return torch.tensor(value, dtype=dtype, device=device)


def _product(
    gate: Tensor, up: Tensor, out: Tensor, gate_bias: Tensor | None = None, up_bias: Tensor | None = None
) -> Tensor:
    """x sigmoid(2 x (k + k c x^2)) up, which is gelu_tanh(x) up; ``out`` may be ``gate``."""
    k, width = _constant(gate.dtype, gate.device, 2.0 * _K), gate.shape[-1]
    blocks = [cache_blocks(x.view(-1, width), BLOCK_ELEMENTS // width) for x in (gate, up, out)]
    scratch = torch.empty_like(blocks[0][0])
    for x, u, y in zip(*blocks, strict=True):
        if gate_bias is not None:
            x.add_(gate_bias)
        if up_bias is not None:
            u.add_(up_bias)
        share = torch.addcmul(k, x, x, value=2.0 * _K * _C, out=scratch[: len(x)]).mul_(x).sigmoid_()
        torch.mul(x, share, out=y).mul_(u)
    return out


class _GeluProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        if gate.dtype not in _WIDE:
            return functional.gelu(gate, approximate="tanh").mul_(up)
        return _product(gate, up, torch.empty_like(gate))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        if gate.dtype not in _WIDE:
            dup = functional.gelu(gate, approximate="tanh").mul_(dy)
            return torch.ops.aten.gelu_backward(torch.mul(dy, up), gate, approximate="tanh"), dup
        dgate, dup = torch.empty_like(gate), torch.empty_like(gate)
        blocks = [cache_blocks(x.view(-1), BLOCK_ELEMENTS) for x in (gate, up, dy.contiguous(), dgate, dup)]
        scratch = gate.new_empty(3, len(blocks[0][0]))
        for block in zip(*blocks, strict=True):
            _gradients(*block, *scratch[:, : len(block[0])].unbind(0))
        return dgate, dup


def _gradients(
    x: Tensor, up: Tensor, dy: Tensor, dgate: Tensor, dup: Tensor, slope: Tensor, t: Tensor, half: Tensor
) -> None:
    """dup = dy x (1 + t) / 2, dgate = dy up (1 + t + x (1 - t^2) k (1 + 3 c x^2)) / 2 of one block."""
    k, one = (_constant(x.dtype, x.device, value) for value in (_K, 1.0))
    torch.addcmul(k, x, x, value=_K * _C, out=slope)
    torch.mul(slope, x, out=t).tanh_()
    slope.mul_(3.0).sub_(2.0 * _K).mul_(x).mul_(torch.addcmul(one, t, t, value=-1.0, out=half))
    slope.add_(t.add_(1.0))
    torch.mul(dy, 0.5, out=half)
    torch.mul(t, x, out=dup).mul_(half)
    torch.mul(slope, up, out=dgate).mul_(half)
