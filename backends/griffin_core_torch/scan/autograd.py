"""Differentiation of any kernel from its record: forward saves inputs and outputs, backward calls the VJP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from griffin_core.protocol import Kernel


class _KernelFunction(torch.autograd.Function):
    """One differentiable call of a kernel that has a VJP. It cannot be differentiated twice."""

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, form: Sequence[Any], *leaves: Tensor | None) -> Any:
        outputs = kernel.forward(*_pack(form, leaves))
        ctx.kernel, ctx.form, ctx.count = kernel, form, len(leaves)
        ctx.save_for_backward(*leaves, *outputs)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        leaves, outputs = saved[: ctx.count], saved[ctx.count :]
        grads = ctx.kernel.vjp(*_pack(ctx.form, leaves), *outputs, *cotangents)
        return (None, None, *_unpack(ctx.form, grads))


def wants_grad(*inputs: Any) -> bool:
    """Whether autograd is recording and some input asks for a gradient."""
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)


def run_kernel(kernel: Kernel, *inputs: Tensor | Mapping[str, Tensor] | None) -> Any:
    """The kernel's outputs, connected to autograd where a gradient is asked for.

    A kernel without a VJP is called as it is, and PyTorch differentiates what it does. A mapping among the
    inputs (the parameters of ``rg_lru``) has a mapping as its gradient.
    """
    form = [None if not isinstance(x, Mapping) else tuple(x) for x in inputs]
    leaves = _unpack(form, inputs)
    if not wants_grad(*leaves):
        with torch.no_grad():
            return kernel.forward(*inputs)
    if kernel.vjp is None:
        return kernel.forward(*inputs)
    return _KernelFunction.apply(kernel, form, *leaves)


def _unpack(form: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Mappings replaced by their values; ``form`` keeps the names."""
    flat: list[Any] = []
    for names, value in zip(form, values, strict=True):
        flat += [value] if names is None else [value.get(name) for name in names]
    return flat


def _pack(form: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
    """The inverse of ``_unpack``."""
    rest = iter(leaves)
    return [next(rest) if names is None else {name: next(rest) for name in names} for names in form]
