"""The gates of the RG-LRU: block-diagonal products, and decay and input multiplier as separate arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.scan.gated_eager import Marks, decay_rate
from griffin_core_torch.scan.gated_eager_vjp import param_grad


class _BlockDiagonal(torch.autograd.Function):
    """y = x W + b for block-diagonal W, on rows [r d]; no transposed copy of x or y is made."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        blocks = x.view(-1, *weight.shape[:2]).transpose(0, 1)  # [h r k]
        y = torch.empty_like(x)
        torch.bmm(blocks, weight, out=y.view(-1, *weight.shape[:2]).transpose(0, 1))
        return y.add_(bias.reshape(-1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        shape = (-1, *weight.shape[:2])
        dy = dy.contiguous()
        dy_blocks = dy.view(shape).transpose(0, 1)
        dx = torch.empty_like(x)
        torch.bmm(dy_blocks, weight.transpose(1, 2), out=dx.view(shape).transpose(0, 1))
        dweight = torch.bmm(x.view(shape).permute(1, 2, 0), dy_blocks)
        return dx, dweight, dy.sum(0).view(weight.shape[:2])


def block_gates(x: Tensor, params: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(gate_x, gate_a): pre-activations of the input gate and of the recurrence gate, [b t d] in x's dtype.

    Each of h blocks of x is multiplied by its own [k k] matrix from the right. Weights of another dtype
    are computed in x's.
    """
    rows = x.reshape(-1, x.shape[-1])
    gates = []
    for gate in ("input_gate", "recurrent_gate"):
        weight, bias = (params[f"{gate}_{part}"].to(x.dtype) for part in ("weight", "bias"))
        if torch.compiler.is_compiling():  # the compiler takes no strided ``out``, and lays products out itself
            blocks = torch.bmm(rows.view(-1, *weight.shape[:2]).transpose(0, 1), weight) + bias[:, None]
            gates.append(blocks.transpose(0, 1).reshape(x.shape))
        else:
            gates.append(_BlockDiagonal.apply(rows, weight, bias).view(x.shape))
    return gates[0], gates[1]


class _Decay(torch.autograd.Function):
    """(log_a, m) from the recurrence gate, with the gradient that is exact and finite up to a = 1."""

    @staticmethod
    def forward(ctx: Any, gate_a: Tensor, recurrent_param: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(gate_a, recurrent_param)
        wide = accumulate_dtype(gate_a.dtype)
        log_a = torch.sigmoid(gate_a.to(wide)) * decay_rate(recurrent_param, wide)
        return log_a, torch.sqrt(-torch.expm1(2.0 * log_a))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlog_a: Tensor, dm: Tensor) -> tuple[Tensor, Tensor]:
        gate_a, recurrent_param = ctx.saved_tensors
        r = torch.sigmoid(gate_a.to(dlog_a.dtype))
        log_a = r * decay_rate(recurrent_param, r.dtype)
        square = -torch.expm1(2.0 * log_a)
        slope = log_a * torch.rsqrt(square.clamp_min(torch.finfo(r.dtype).tiny))  # log_a / m
        q = log_a * dlog_a - dm * torch.exp(2.0 * log_a) * slope
        return ((1.0 - r) * q).to(gate_a.dtype), param_grad(recurrent_param, q.sum((0, 1)))


def scan_input(
    x: Tensor, gate_x: Tensor, gate_a: Tensor, recurrent_param: Tensor, found: Marks
) -> tuple[Tensor, Tensor]:
    """(u, log_a) such that ``linear_scan(u, log_a, h0, reset)`` is ``gated_scan``; float32 [b t d].

    Padding has u = 0 and log_a = 0; at a reset the multiplier is 1.
    """
    log_a, multiplier = _Decay.apply(gate_a, recurrent_param)
    if found.reset is not None:
        multiplier = multiplier.masked_fill(found.reset[..., None], 1.0)
    u = torch.sigmoid(gate_x.to(log_a.dtype)) * x.to(log_a.dtype) * multiplier
    if found.pad is not None:
        u, log_a = (v.masked_fill(found.pad[..., None], 0.0) for v in (u, log_a))
    return u, log_a
