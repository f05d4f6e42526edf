"""The passes as operators of PyTorch: known to autograd, ``torch.compile``, checkpointing and CUDA graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from griffin_core_torch.triton import passes
from griffin_core_torch.triton.call import make_call
from griffin_core_torch.triton.plan import Carry, backward_plan, forward_plan

AUTO = "auto"
"""The carry that the plan chooses; on AMD the one for which no program waits."""


def _carry(name: str, back: bool) -> Carry | None:
    if name == "given" or (name == AUTO and torch.version.hip):
        return "given"
    if back:
        return "aggregate"
    return None if name == AUTO else name  # type: ignore[return-value]


@torch.library.custom_op("griffin_core::scan", mutates_args=())
def scan(
    x: Tensor,
    y: Tensor | None,
    z: Tensor,
    param: Tensor | None,
    h0: Tensor | None,
    marks: Tensor | None,
    starts: Tensor | None,
    cell: str,
    carry: str,
    save: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, last states, saved states) of a recurrence (``call.make_call``, ``passes.forward``)."""
    call = make_call(cell, x, y, z, param, h0, marks, starts)
    if 0 in call.shape:
        return empty(call.x, call.sequences, h0)
    plan = forward_plan(call.shape, x.element_size(), _carry(carry, back=False), call.marked)
    return passes.forward(call, plan, save)


def empty(x: Tensor, sequences: int, h0: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Without a token, the state stays."""
    h = x.new_zeros(sequences, x.shape[2], dtype=torch.float32) if h0 is None else h0.to(torch.float32, copy=True)
    return torch.empty_like(x, memory_format=torch.contiguous_format), h, h.new_empty(0)


@scan.register_fake
def _(x, y, z, param, h0, marks, starts, cell, carry, save):  # type: ignore[no-untyped-def]
    batch, time, width = x.shape
    sequences = batch if starts is None else starts.shape[0] - 1
    saved = (time + save - 1) // save if save else 0
    last = x.new_empty(sequences, width, dtype=torch.float32)
    return x.new_empty(x.shape), last, x.new_empty(batch, saved, width, dtype=torch.float32)


@torch.library.custom_op("griffin_core::scan_backward", mutates_args=())
def scan_backward(
    x: Tensor,
    y: Tensor | None,
    z: Tensor,
    param: Tensor | None,
    h0: Tensor | None,
    marks: Tensor | None,
    starts: Tensor | None,
    states: Tensor,
    dout: Tensor,
    dlast: Tensor,
    cell: str,
    carry: str,
    save: int,
) -> list[Tensor]:
    """Gradients of x, z, h0 (float32) and, but for "linear", y and param (float32)."""
    call = make_call(cell, x, y, z, param, h0, marks, starts)
    if 0 in call.shape:
        zeros = [torch.zeros_like(v, memory_format=torch.contiguous_format) for v in (x, z)]
        more = [] if y is None or param is None else [torch.zeros_like(y), torch.zeros_like(param, dtype=torch.float32)]
        return [*zeros, dlast.to(torch.float32, copy=True), *more]
    plan = backward_plan(call.shape, save, _carry(carry, back=True) or "aggregate")
    found = passes.backward(call, plan, states, dout, dlast)
    return [found.x, found.z, found.h0, *(v for v in (found.y, found.param) if v is not None)]


@scan_backward.register_fake
def _(x, y, z, param, h0, marks, starts, states, dout, dlast, cell, carry, save):  # type: ignore[no-untyped-def]
    found = [x.new_empty(x.shape), z.new_empty(z.shape), dlast.new_empty(dlast.shape, dtype=torch.float32)]
    if y is not None and param is not None:
        found += [y.new_empty(y.shape), param.new_empty(param.shape, dtype=torch.float32)]
    return found


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, cell, ctx.carry, ctx.save = inputs
    ctx.cell = "gated" if cell == "approx" else cell  # the way back has instructions to spare
    ctx.save_for_backward(*tensors, output[2])


def _pull(ctx: Any, dout: Tensor, dlast: Tensor, _: Tensor) -> tuple[Any, ...]:
    *inputs, states = ctx.saved_tensors
    dx, dz, dh0, *rest = scan_backward(*inputs, states, dout, dlast, ctx.cell, ctx.carry, ctx.save)
    y, param, h0 = inputs[1], inputs[3], inputs[4]
    dy = rest[0] if y is not None and rest else None
    dparam = rest[1].to(param.dtype) if param is not None and rest else None
    return dx, dy, dz, dparam, None if h0 is None else dh0.to(h0.dtype), None, None, None, None, None


scan.register_autograd(_pull, setup_context=_keep)
