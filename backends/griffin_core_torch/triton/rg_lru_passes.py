"""A forward and a backward pass of the RG-LRU with its gates' products: workspaces, launches, results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from griffin_core_torch.triton.call import Call
from griffin_core_torch.triton.launch import launch
from griffin_core_torch.triton.passes import chain_words, column_sums, last_states
from griffin_core_torch.triton.plan import Plan


@dataclass(frozen=True)
class BlockCall:
    """One call.

    Attributes:
        scan: the recurrence, whose x the gates are computed from; its y and z are not read.
        weight_x, weight_a: [h k k] in x's dtype; bias_x, bias_a: [h k]. All contiguous.
    """

    scan: Call
    weight_x: Tensor
    bias_x: Tensor
    weight_a: Tensor
    bias_a: Tensor

    @property
    def block(self) -> int:
        """k."""
        return self.weight_x.shape[1]

    def arguments(self, plan: Plan) -> dict[str, Any]:
        """What both kernels take by these names."""
        x, (batch, time, width) = self.scan.x, self.scan.shape
        given = {**self.scan.arrays(), **self.scan.constants(), "slots": x, "SLOTS": False}
        given |= {"weight_x": self.weight_x, "bias_x": self.bias_x, "weight_a": self.weight_a, "bias_a": self.bias_a}
        given |= {"batch": batch, "time": time, "width": width, "x_batch": x.stride(0), "x_time": x.stride(1)}
        given |= {"tiles": plan.tiles(time), "BLOCK": self.block, "CARRY": plan.carry, "WIDTH": plan.width}
        given |= {"ROWS": plan.rows, "LEVELS": plan.rows.bit_length() - 1, "SEGMENTS": plan.segments}
        return given | {"WHOLE": time % plan.tokens == 0 and self.block % plan.width == 0}

    def grid(self, plan: Plan) -> tuple[int]:
        """Programs: none crosses a block."""
        batch, time, width = self.scan.shape
        return (batch * plan.tiles(time) * (width // self.block) * -(-self.block // plan.width),)


class BlockGradients(NamedTuple):
    """Gradients of x, weights and biases in x's dtype; of recurrent_param and h0 in float32."""

    x: Tensor
    weight_x: Tensor
    bias_x: Tensor
    weight_a: Tensor
    bias_a: Tensor
    param: Tensor
    h0: Tensor


def block_forward(call: BlockCall, plan: Plan, save: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """y [b t d] in x's dtype; the last states float32 [rows d]; the saved states (``passes.forward``)."""
    x, (batch, time, width) = call.scan.x, call.scan.shape
    out, last = torch.empty(call.scan.shape, dtype=x.dtype, device=x.device), last_states(call.scan)
    saved, words = -(-time // save) if save else 0, chain_words(call.scan, plan)
    states = x.new_empty(batch, saved, width, dtype=torch.float32)
    given = call.arguments(plan) | {"out": out, "last": last, "states": states, "words": words, "ticket": words[-1:]}
    given |= {"saved": saved, "EVERY": save, "out_batch": time * width, "out_time": width}
    launch("rg_lru_kernel", "rg_lru_kernel", call.grid(plan), plan.segments, given)
    return out, last, states


def block_backward(call: BlockCall, plan: Plan, states: Tensor, dout: Tensor, dlast: Tensor) -> BlockGradients:
    """Gradients of ``block_forward``.

    Args:
        plan: with as many rows as there are tokens between saved states.
        states: what ``block_forward`` saved.
        dout: [b t d] with channels side by side; dlast: float32 [rows d], contiguous.
    """
    x, (batch, time, width) = call.scan.x, call.scan.shape
    dx = torch.empty(call.scan.shape, dtype=x.dtype, device=x.device)
    dgates = torch.empty(batch, time, 2 * width, dtype=x.dtype, device=x.device)
    dh0 = dlast.clone() if call.scan.begins is not None else torch.empty_like(dlast)
    partial = x.new_empty(batch, plan.tiles(time), width, dtype=torch.float32)
    words = chain_words(call.scan, plan)
    given = call.arguments(plan) | {"states": states, "saved": states.shape[1], "words": words, "ticket": words[-1:]}
    given |= {"dout": dout, "dlast": dlast, "dx": dx, "dgates": dgates, "dh0": dh0, "drate": partial}
    given |= {"dout_batch": dout.stride(0), "dout_time": dout.stride(1), "dx_time": width, "dgates_time": 2 * width}
    given |= {"AGAIN": min(plan.again, plan.rows)}
    launch("rg_lru_backward_kernel", "rg_lru_backward_kernel", call.grid(plan), plan.segments, given)
    weights, biases = _products_back(call, dx, dgates)
    param = column_sums(partial.flatten(0, 1), call.scan.param)
    return BlockGradients(dx, weights[0], biases[0], weights[1], biases[1], param, dh0)


def _products_back(call: BlockCall, dx: Tensor, dgates: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Gradients of both gates' weights and biases; what comes through the products is added to ``dx``.

    Both gates of a block stand side by side, so that one product of [rows 2k] does for both.
    """
    heads, block = call.weight_x.shape[:2]
    inputs = call.scan.x.reshape(-1, heads, block).transpose(0, 1)  # [h rows k]
    slopes = dgates.view(-1, heads, 2 * block).transpose(0, 1)  # [h rows 2k]
    both = torch.cat([call.weight_x, call.weight_a], dim=2)  # [h k 2k]
    dx.view(-1, heads, block).transpose(0, 1).baddbmm_(slopes, both.transpose(1, 2))
    dweights = torch.bmm(inputs.transpose(1, 2), slopes)
    dbiases = slopes.sum(1)
    return _halves(dweights), _halves(dbiases)


def _halves(both: Tensor) -> tuple[Tensor, ...]:
    """Copies, since results of an operator may not share memory."""
    return tuple(half.clone(memory_format=torch.contiguous_format) for half in both.chunk(2, -1))
