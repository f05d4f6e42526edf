"""The convolution as an operator of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from griffin_core_torch.triton.call import side_by_side
from griffin_core_torch.triton.conv_passes import ConvCall, conv_backward, conv_forward
from griffin_core_torch.triton.plan import conv_plan


@torch.library.custom_op("griffin_core::conv", mutates_args=())
def conv(
    x: Tensor, weight: Tensor, bias: Tensor, state: Tensor | None, positions: Tensor | None, starts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(y, the states that are left)."""
    call = _call(x, weight, bias, state, positions, starts)
    if 0 in call.shape or call.sequences == 0:
        shape = (call.sequences, call.taps - 1, call.shape[2])
        left = x.new_zeros(shape) if state is None else state.to(x.dtype, copy=True)
        return torch.empty_like(x, memory_format=torch.contiguous_format), left
    return conv_forward(call, conv_plan(call.shape))


@conv.register_fake
def _(x, weight, bias, state, positions, starts):  # type: ignore[no-untyped-def]
    sequences = x.shape[0] if starts is None else starts.shape[0] - 1
    return x.new_empty(x.shape), x.new_empty(sequences, weight.shape[2] - 1, x.shape[2])


@torch.library.custom_op("griffin_core::conv_backward", mutates_args=())
def conv_gradient(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: Tensor | None,
    positions: Tensor | None,
    starts: Tensor | None,
    dout: Tensor,
    dleft: Tensor,
) -> list[Tensor]:
    """Gradients of x, weight, bias and the state, in their dtypes (the state's in float32)."""
    call = _call(x, weight, bias, state, positions, starts)
    if 0 in call.shape or call.sequences == 0:
        zeros = [torch.zeros_like(v, memory_format=torch.contiguous_format) for v in (x, weight, bias)]
        return [*zeros, dleft.to(torch.float32, copy=True)]
    found = conv_backward(call, conv_plan(call.shape, back=True), dout, dleft)
    dweight = found.taps.flip(0).t()[:, None, :].to(weight.dtype).contiguous()
    return [found.x, dweight, found.bias.to(bias.dtype, copy=True), found.state]


@conv_gradient.register_fake
def _(x, weight, bias, state, positions, starts, dout, dleft):  # type: ignore[no-untyped-def]
    return [v.new_empty(v.shape) for v in (x, weight, bias)] + [dleft.new_empty(dleft.shape, dtype=torch.float32)]


def _call(
    x: Tensor, weight: Tensor, bias: Tensor, state: Tensor | None, positions: Tensor | None, starts: Tensor | None
) -> ConvCall:
    return ConvCall(
        x=side_by_side(x),
        weight=weight.contiguous(),
        bias=bias.contiguous(),
        state=None if state is None else state.contiguous(),
        positions=None if positions is None else positions.to(torch.int32).contiguous(),
        starts=None if starts is None else starts.to(torch.int64),
    )


def _keep(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs)


def _pull(ctx: Any, dout: Tensor, dleft: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors
    dx, dweight, dbias, dstate = conv_gradient(*inputs, dout, dleft)
    return dx, dweight, dbias, None if inputs[3] is None else dstate.to(inputs[3].dtype), None, None


conv.register_autograd(_pull, setup_context=_keep)
