"""A forward and a backward pass of the convolution: workspaces, launches, results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from griffin_core_torch.triton.call import side_by_side
from griffin_core_torch.triton.launch import launch
from griffin_core_torch.triton.passes import column_sums
from griffin_core_torch.triton.plan import Plan

BLOCK, END_WIDTH, END_WARPS = 1024, 128, 4
"""Positions that are counted at a time; channels and warps of a program that works on the ends of a sequence."""


@dataclass(frozen=True)
class ConvCall:
    """One call of the convolution.

    Attributes:
        x: [b t d] with channels side by side.
        weight: [d 1 w]; bias: [d].
        state: [rows w-1 d] or None.
        positions: int32 [b t] or None.
        starts: int64 [n+1] of packed sequences, or None.
        slots: int32 [n], the row of ``state`` that belongs to each sequence (row of the batch), or None.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    state: Tensor | None
    positions: Tensor | None
    starts: Tensor | None
    slots: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(b, t, d)."""
        return self.x.shape[0], self.x.shape[1], self.x.shape[2]

    @property
    def taps(self) -> int:
        """w."""
        return self.weight.shape[2]

    @property
    def sequences(self) -> int:
        """Sequences, or rows of the batch."""
        return self.shape[0] if self.starts is None else self.starts.shape[0] - 1

    def arguments(self) -> dict[str, Any]:
        """What the kernels take by these names; an absent array is any other, and not read."""
        none, packed = self.x, self.starts is not None
        sequences, local = (none, none) if self.starts is None else places(self.starts, self.shape[1], self.slots)
        arrays = {"state": self.state, "marks": self.positions, "starts": self.starts, "slots": self.slots}
        given = {name: none if value is None else value for name, value in arrays.items()}
        given |= {"x": self.x, "weight": self.weight, "bias": self.bias, "sequences": sequences, "local": local}
        given |= {"batch": self.shape[0], "time": self.shape[1], "width": self.shape[2], "TAPS": self.taps}
        given |= {"x_batch": self.x.stride(0), "x_time": self.x.stride(1)}
        given |= {"MARKS": "none" if self.positions is None else "positions", "PACKED": packed}
        return given | {"HAS_STATE": self.state is not None, "SLOTS": self.slots is not None}


class ConvGradients(NamedTuple):
    """Gradients: x in its dtype, weight [w d] (the current token's tap first), bias [d] and state in float32."""

    x: Tensor
    taps: Tensor
    bias: Tensor
    state: Tensor


def places(starts: Tensor, time: int, slots: Tensor | None) -> tuple[Tensor, Tensor]:
    """int32 [t] each: the row of the state that belongs to a token's sequence, and its place in the sequence."""
    steps = torch.arange(time, device=starts.device)
    found = torch.searchsorted(starts[1:], steps, right=True).clamp_max_(max(len(starts) - 2, 0))
    local = (steps - starts[found]).to(torch.int32)
    return (found.to(torch.int32) if slots is None else slots[found]), local


def conv_forward(call: ConvCall, plan: Plan) -> tuple[Tensor, Tensor]:
    """y [b t d] and the states that are left, [rows w-1 d], both in x's dtype."""
    _, time, width = call.shape
    out = torch.empty(call.shape, dtype=call.x.dtype, device=call.x.device)
    arguments = call.arguments() | {"out_batch": time * width, "out_time": width}
    _launch("conv_kernel", call, plan, arguments | {"out": out})
    return out, _left_state(call, arguments)


def _left_state(call: ConvCall, arguments: dict[str, Any]) -> Tensor:
    """The states that are left, [rows w-1 d] in x's dtype."""
    if call.slots is not None and call.state is not None:
        left = call.state.to(call.x.dtype, copy=True)
    else:
        left = call.x.new_empty(call.sequences, call.taps - 1, call.shape[2])
    if call.taps > 1:
        _launch_ends("conv_kernel", "tail_kernel", call, arguments | {"out": left})
    return left


def conv_backward(call: ConvCall, plan: Plan, dout: Tensor, dleft: Tensor) -> ConvGradients:
    """Gradients of ``conv_forward`` from those of its results; nothing is added by atomics."""
    batch, time, width = call.shape
    dout, dleft = side_by_side(dout), dleft.contiguous()
    dx = torch.empty(call.shape, dtype=call.x.dtype, device=call.x.device)
    dstate = call.x.new_zeros(dleft.shape, dtype=torch.float32)
    tiles, columns = plan.tiles(time), (call.taps + 1) * width
    partial = call.x.new_empty(batch * tiles, columns, dtype=torch.float32)
    arguments = call.arguments() | {"dout": dout, "dx": dx, "partial": partial, "tiles": tiles}
    arguments |= {"dout_batch": dout.stride(0), "dout_time": dout.stride(1), "grad_time": width}
    _launch("conv_backward_kernel", call, plan, arguments)
    if call.taps > 1:
        _launch_ends("conv_backward_kernel", "ends_kernel", call, arguments | {"dout_state": dleft, "dstate": dstate})
    sums = column_sums(partial).view(call.taps + 1, width)
    return ConvGradients(dx, sums[:-1], sums[-1], dstate)


def _launch(name: str, call: ConvCall, plan: Plan, arguments: dict[str, Any]) -> None:
    """Run a kernel over all tiles."""
    whole = call.shape[1] % plan.tokens == 0 and call.shape[2] % plan.width == 0
    cut = {"ROWS": plan.rows, "SEGMENTS": plan.segments, "WIDTH": plan.width, "WHOLE": whole}
    launch(name, name, (plan.programs(call.shape),), plan.segments, arguments | cut)


def _launch_ends(module: str, name: str, call: ConvCall, arguments: dict[str, Any]) -> None:
    """Run a kernel over all ends of sequences."""
    grid = (-(-call.shape[2] // END_WIDTH), call.sequences)
    launch(module, name, grid, END_WARPS, arguments | {"WIDTH": END_WIDTH, "BLOCK": BLOCK})
