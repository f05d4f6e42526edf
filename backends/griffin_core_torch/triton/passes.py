"""A forward and a backward pass: workspaces, launches, results."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from griffin_core_torch.triton.call import Call, side_by_side
from griffin_core_torch.triton.launch import launch
from griffin_core_torch.triton.plan import Plan

FINISH_ROWS, FINISH_WIDTH, JOIN_WIDTH = 32, 64, 128


class Gradients(NamedTuple):
    """Gradients of x, y and z (None for "linear") in their dtypes, of param (or None) and h0 in float32."""

    x: Tensor
    y: Tensor | None
    z: Tensor
    param: Tensor | None
    h0: Tensor


def forward(call: Call, plan: Plan, save: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence.

    Args:
        save: tokens between states to save for ``backward``, a divisor of the plan's rows; 0 saves none.

    Returns:
        y [b t d] in x's dtype; the last states float32 [rows d]; the saved states float32 [b ceil(t / save) d].
    """
    batch, time, width = call.shape
    out = torch.empty(call.shape, dtype=call.x.dtype, device=call.x.device)
    last = last_states(call)
    saved = -(-time // save) if save else 0
    states = call.x.new_empty(batch, saved, width, dtype=torch.float32)
    words = chain_words(call, plan)
    given = _given(call, plan, None, None) if plan.carry == "given" else states
    arrays = {"out": out, "last": last, "states": states, "states_in": given, "words": words, "ticket": words[-1:]}
    numbers = {"saved": saved, "out_batch": out.stride(0), "out_time": width, "EVERY": save, "CARRY": plan.carry}
    _launch("forward_kernel", call, plan, arrays, numbers)
    return out, last, states


def backward(call: Call, plan: Plan, states: Tensor, dout: Tensor, dlast: Tensor) -> Gradients:
    """Gradients of ``forward``.

    Args:
        plan: with as many rows as there are tokens between saved states.
        states: what ``forward`` saved.
        dout: [b t d]; dlast: float32 [rows d].
    """
    batch, time, width = call.shape
    dout, dlast = side_by_side(dout), dlast.to(torch.float32).contiguous()
    grads = [torch.empty(call.shape, dtype=v.dtype, device=v.device) for v in (call.x, call.y, call.z)]
    dh0 = dlast.clone() if call.begins is not None else torch.empty_like(dlast)
    tiles, words = plan.tiles(time), chain_words(call, plan)
    partial = call.x.new_empty(batch, tiles, width, dtype=torch.float32)
    given = _given(call, plan, dout, dlast) if plan.carry == "given" else states
    arrays = {"states": states, "dout": dout, "dlast": dlast, "dh0": dh0, "drate": partial, "given": given}
    arrays |= {"dx": grads[0], "dy": grads[1], "dz": grads[2], "words": words, "ticket": words[-1:]}
    numbers = {"saved": states.shape[1], "dout_batch": dout.stride(0), "dout_time": dout.stride(1), "grad_time": width}
    _launch("backward_kernel", call, plan, arrays, numbers | {"CARRY": plan.carry, "AGAIN": min(plan.again, plan.rows)})
    if call.cell == "linear":
        return Gradients(grads[0], None, grads[2], None, dh0)
    return Gradients(grads[0], grads[1], grads[2], column_sums(partial.flatten(0, 1), call.param), dh0)


def last_states(call: Call) -> Tensor:
    """Where the last states go: a sequence without tokens keeps the state it had."""
    shape = (call.sequences, call.shape[2])
    if call.slots is not None and call.h0 is not None:
        return call.h0.clone()
    if call.begins is None:
        return call.x.new_empty(shape, dtype=torch.float32)
    return call.x.new_zeros(shape, dtype=torch.float32) if call.h0 is None else call.h0.clone()


def chain_words(call: Call, plan: Plan) -> Tensor:
    """The zeroed words of the chains, and the ticket behind them."""
    batch, time, width = call.shape
    count = 0 if plan.carry == "given" else batch * plan.tiles(time) * width
    return torch.zeros(count + 1, dtype=torch.int64, device=call.x.device)


def _given(call: Call, plan: Plan, dout: Tensor | None, dlast: Tensor | None) -> Tensor:
    """float32 [b tiles d]: the states before all tiles (with ``dout``: e after them)."""
    batch, time, width = call.shape
    tiles, back = plan.tiles(time), dout is not None
    sums, states = call.x.new_empty(2, batch, tiles, width, dtype=torch.float32).unbind(0)
    arrays = {"dout": call.x if dout is None else dout, "dlast": sums if dlast is None else dlast}
    strides = {"dout_batch": arrays["dout"].stride(0), "dout_time": arrays["dout"].stride(1)}
    _launch(
        "totals_kernel", call, plan, {**arrays, "sums": sums, "states": states}, {**strides, "BACK": back}, "totals"
    )
    first = dlast if back else call.h0
    if first is None or call.begins is not None:
        first = call.x.new_zeros(batch, width, dtype=torch.float32)
    slots = call.slots if call.slots is not None and call.begins is None else None
    chosen = {"WIDTH": JOIN_WIDTH, "BACK": back, "SLOTS": slots is not None, "width": width, "tiles": tiles}
    chosen |= {"sums": sums, "states": states, "first": first, "slots": sums if slots is None else slots}
    launch("totals", "join_kernel", (-(-width // JOIN_WIDTH), batch), 1, chosen)
    return states


def column_sums(partial: Tensor, param: Tensor | None = None) -> Tensor:
    """float32 [d]: the sums of partial [n d] in one fixed order; with ``param`` [d], the gradient that they give it."""
    count, width = partial.shape
    out = partial.new_empty(width)
    given = {"ROWS": FINISH_ROWS, "WIDTH": FINISH_WIDTH, "RATE": param is not None, "count": count, "width": width}
    given |= {"partial": partial, "param": partial if param is None else param, "out": out}
    launch("finish", "finish_kernel", (-(-width // FINISH_WIDTH),), 4, given)
    return out


def _launch(
    name: str, call: Call, plan: Plan, arrays: dict[str, Tensor], numbers: dict[str, Any], module: str | None = None
) -> None:
    """Run one kernel over all tiles; its arguments are given by name."""
    batch, time, width = call.shape
    whole = time % plan.tokens == 0 and width % plan.width == 0
    sizes = {"batch": batch, "time": time, "width": width, "tiles": plan.tiles(time)}
    cut = {"ROWS": plan.rows, "SEGMENTS": plan.segments, "WIDTH": plan.width, "WHOLE": whole}
    slots = {"slots": call.x if call.slots is None else call.slots, "SLOTS": call.slots is not None}
    given = {**call.arrays(), **arrays, **sizes, **call.strides(), **cut, **call.constants(), **numbers, **slots}
    launch(module or name, name, (plan.programs(call.shape),), plan.segments, given)
