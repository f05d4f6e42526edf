"""The RG-LRU with its gates' products as an operator of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from griffin_core_torch.triton.call import make_call, side_by_side
from griffin_core_torch.triton.ops import empty
from griffin_core_torch.triton.plan import Plan, block_plan, saved_rows
from griffin_core_torch.triton.rg_lru_passes import BlockCall, block_backward, block_forward

PARAMETERS = (
    "input_gate_weight",
    "input_gate_bias",
    "recurrent_gate_weight",
    "recurrent_gate_bias",
    "recurrent_param",
)
"""In the order in which the operators take them."""


@torch.library.custom_op("griffin_core::rg_lru", mutates_args=())
def rg_lru(
    x: Tensor,
    weight_x: Tensor,
    bias_x: Tensor,
    weight_a: Tensor,
    bias_a: Tensor,
    param: Tensor,
    h0: Tensor | None,
    positions: Tensor | None,
    starts: Tensor | None,
    save: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, last states, saved states); ``ops.scan`` with weights for gates."""
    call = _call(x, weight_x, bias_x, weight_a, bias_a, param, h0, positions, starts)
    if 0 in call.scan.shape:
        return empty(x, call.scan.sequences, h0)
    return block_forward(call, _plan(call), save)


@rg_lru.register_fake
def _(x, weight_x, bias_x, weight_a, bias_a, param, h0, positions, starts, save):  # type: ignore[no-untyped-def]
    batch, time, width = x.shape
    sequences = batch if starts is None else starts.shape[0] - 1
    saved = (time + save - 1) // save if save else 0
    last = x.new_empty(sequences, width, dtype=torch.float32)
    return x.new_empty(x.shape), last, x.new_empty(batch, saved, width, dtype=torch.float32)


@torch.library.custom_op("griffin_core::rg_lru_backward", mutates_args=())
def rg_lru_backward(
    x: Tensor,
    weight_x: Tensor,
    bias_x: Tensor,
    weight_a: Tensor,
    bias_a: Tensor,
    param: Tensor,
    h0: Tensor | None,
    positions: Tensor | None,
    starts: Tensor | None,
    states: Tensor,
    dout: Tensor,
    dlast: Tensor,
) -> list[Tensor]:
    """Gradients of x and the five parameters in their dtypes, and of h0 in float32."""
    call = _call(x, weight_x, bias_x, weight_a, bias_a, param, h0, positions, starts)
    leaves, dlast = (x, weight_x, bias_x, weight_a, bias_a, param), dlast.to(torch.float32).contiguous()
    if 0 in call.scan.shape:
        return [*(torch.zeros_like(v, memory_format=torch.contiguous_format) for v in leaves), dlast.clone()]
    *grads, dh0 = block_backward(call, _plan(call), states, side_by_side(dout), dlast)
    return [*(grad.to(leaf.dtype) for grad, leaf in zip(grads, leaves, strict=True)), dh0]


@rg_lru_backward.register_fake
def _(x, weight_x, bias_x, weight_a, bias_a, param, h0, positions, starts, states, dout, dlast):  # type: ignore[no-untyped-def]
    leaves = (x, weight_x, bias_x, weight_a, bias_a, param)
    return [*(v.new_empty(v.shape) for v in leaves), dlast.new_empty(dlast.shape, dtype=torch.float32)]


def _call(
    x: Tensor,
    weight_x: Tensor,
    bias_x: Tensor,
    weight_a: Tensor,
    bias_a: Tensor,
    param: Tensor,
    h0: Tensor | None,
    positions: Tensor | None,
    starts: Tensor | None,
) -> BlockCall:
    scan = make_call("gated", x, None, x, param, h0, positions, starts)
    weight_x, weight_a = (v.to(x.dtype).contiguous() for v in (weight_x, weight_a))
    return BlockCall(scan, weight_x, bias_x.contiguous(), weight_a, bias_a.contiguous())


def _plan(call: BlockCall) -> Plan:
    packed = call.scan.begins is not None
    return block_plan(call.scan.shape, call.block, saved_rows(call.scan.x.element_size(), packed))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:-1], output[2])


def _pull(ctx: Any, dout: Tensor, dlast: Tensor, _: Tensor) -> tuple[Any, ...]:
    inputs = ctx.saved_tensors
    *grads, dh0 = rg_lru_backward(*inputs, dout, dlast)
    h0 = inputs[6]
    return (*grads, None if h0 is None else dh0.to(h0.dtype), None, None, None)


rg_lru.register_autograd(_pull, setup_context=_keep)
