"""Calls of the kernels' records: arguments of any size on any device, both passes, results by their bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from griffin_core.protocol import Kernel
from griffin_core_torch.triton.records import KERNELS
from griffin_core_torch.triton.rg_lru_ops import PARAMETERS

RECORDS = {(kernel.op, kernel.name): kernel for kernel in KERNELS}
MARKS = ("none", "documents", "packed")
SEQUENCES, TAPS = 4, 4
"""Sequences of a packed row, of which the second is empty; width of the convolution."""

Tree = Any
"""A tensor, a dict of tensors, or None."""


@dataclass(frozen=True)
class Call:
    """A kernel with its arguments; floating tensors among them want gradients."""

    kernel: Kernel
    arguments: tuple[Tree, ...]

    def values(self) -> list[Tensor]:
        """What the forward pass gives, without a graph for gradients."""
        with torch.no_grad(), np.errstate(all="ignore"):  # the interpreter is NumPy
            return list(self.kernel.forward(*self.arguments))

    def both(self) -> list[Tensor]:
        """What the forward pass gives, then the gradients of all leaves for cotangents that are always the same."""
        with np.errstate(all="ignore"):
            outputs = list(self.kernel.forward(*self.arguments))
            seeds = [randn(x.shape, x.device, x.dtype, seed) for seed, x in enumerate(outputs)]
            return [*(x.detach() for x in outputs), *torch.autograd.grad(outputs, self.leaves(), seeds)]

    def leaves(self) -> list[Tensor]:
        """Tensors with a gradient, in the order of the arguments."""
        flat = [x for value in self.arguments for x in (value.values() if isinstance(value, dict) else [value])]
        return [x for x in flat if isinstance(x, Tensor) and x.requires_grad]


def randn(shape: Any, device: Any, dtype: torch.dtype, seed: int) -> Tensor:
    """Normal numbers that depend on the seed and the shape alone, not on the device."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def make_call(
    kernel: Kernel, shape: tuple[int, int, int], device: str, dtype: str = "float32", marks: str = "none"
) -> Call:
    """A call of [b t d] with a state coming in.

    Args:
        marks: "documents": they start within rows, and the first row ends with padding; "packed": a row of
            ``SEQUENCES`` sequences (b is 1).
    """
    batch, _, width = shape
    rows, kind = SEQUENCES if marks == "packed" else batch, getattr(torch, dtype)

    def draw(seed: int, *size: int, wanted: torch.dtype = kind, shift: float = 0.0) -> Tensor:
        return (randn(size, device, wanted, seed) + shift).requires_grad_()

    x, h0 = draw(0, *shape), draw(1, rows, width, wanted=torch.float32)
    mark, starts = _marks(kernel.op, shape, device, marks)
    param = draw(2, width, wanted=torch.float32, shift=-3.0)
    if kernel.op == "linear_scan":
        log_a = (-0.1 * randn(shape, device, kind, 3).abs()).requires_grad_()
        return Call(kernel, (x, log_a, h0, mark, starts))
    if kernel.op == "gated_scan":
        return Call(kernel, (x, draw(3, *shape), draw(4, *shape), param, h0, mark, starts))
    if kernel.op == "conv1d":
        state = draw(5, rows, TAPS - 1, width)
        return Call(kernel, (x, draw(6, width, 1, TAPS), draw(7, width), state, mark, starts))
    block = width // 2 if width % 2 == 0 else width
    gates = [((width // block, block, block), (width // block, block))] * 2
    weights = [draw(8 + n, *size) for n, size in enumerate(size for pair in gates for size in pair)]
    return Call(kernel, (x, dict(zip(PARAMETERS, [*weights, param], strict=True)), h0, mark, starts))


def _marks(op: str, shape: tuple[int, int, int], device: str, marks: str) -> tuple[Tensor | None, Tensor | None]:
    """(positions or resets, starts)."""
    batch, time, _ = shape
    if marks == "packed":
        cuts = torch.tensor([0, time // 3, time // 3, time // 2, time])
        return None, cuts.to(device)
    if marks == "none":
        return None, None
    positions = torch.arange(time).repeat(batch, 1) + 5
    for row in range(batch):
        start = (time // 3 + 7 * row) % max(time - 2, 1)
        positions[row, start:] = torch.arange(time - start)
    positions[0, time - 2 :] = -1
    found = positions == 0 if op == "linear_scan" else positions.to(torch.int32)
    return found.to(device), None


def bits(x: Tensor) -> Tensor:
    """A copy as integers: equal where not even the sign of a zero differs."""
    kind = {2: torch.int16, 4: torch.int32}.get(x.element_size())
    assert kind is not None
    return x.detach().clone(memory_format=torch.contiguous_format).view(kind)


def differs(found: list[Tensor], first: list[Tensor]) -> Tensor:
    """int64 scalar on the device: 1 where some result has other bits than ``first`` (``bits`` of them), else 0."""
    return torch.stack([(bits(x) != y).any() for x, y in zip(found, first, strict=True)]).any().long()
