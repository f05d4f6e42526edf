"""The kernels as this backend offers them."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from griffin_core.protocol import Kernel, KernelCall
from griffin_core_torch.scan.autograd import wants_grad
from griffin_core_torch.triton.conv_ops import conv
from griffin_core_torch.triton.loading import absent, interpreted
from griffin_core_torch.triton.ops import AUTO, scan
from griffin_core_torch.triton.plan import MATRIX, saved_rows
from griffin_core_torch.triton.rg_lru_ops import PARAMETERS
from griffin_core_torch.triton.rg_lru_ops import rg_lru as fused

NAME = "triton"
DTYPES = ("float32", "bfloat16", "float16")
CARRIES = {NAME: AUTO, f"{NAME}-exact": "exact", f"{NAME}-aggregate": "aggregate", f"{NAME}-two-pass": "given"}
"""By name. The first takes the carry that costs no time: "exact" with many channels, "aggregate" with few."""


GATE_ERROR = 2.0**-12
"""What ``triton-approx`` promises of its gates, absolutely."""


def supports(call: KernelCall) -> str | None:
    """None where the kernels run the call, else why not."""
    reason = absent()
    if reason is not None and call.device == "cuda":
        return reason
    if call.device != "cuda" and not (interpreted() and call.device == "cpu"):
        return f"it needs a GPU, and the arrays are on {call.device}"
    for name in ("x", "gate_x", "gate_a", "log_a", "recurrent_param", "weight", "bias", "state"):
        if call.dtypes.get(name, DTYPES[0]) not in DTYPES:
            return f"{name} is {call.dtypes[name]}; it takes {', '.join(DTYPES[:-1])} and {DTYPES[-1]}"
    return None


def chained(call: KernelCall) -> str | None:
    """``supports`` of a kernel in which one program waits for another."""
    if torch.version.hip and not interpreted():
        return f"one program waits for another in it, which AMD does not promise; take {NAME} or {NAME}-two-pass"
    return supports(call)


def multiplied(call: KernelCall) -> str | None:
    """``supports`` of a kernel with the products of the gates inside."""
    reason = chained(call)
    if reason is not None or interpreted():
        return reason
    if call.dtypes["x"] == DTYPES[0]:
        return "x is float32, for whose products matrix units are too coarse; it takes bfloat16 and float16"
    block = call.shapes["input_gate_weight"][-1]
    if block < MATRIX:
        return f"blocks of the gates have {block} channels; matrix units take {MATRIX} or more"
    return None


def gated_scan(
    x: Tensor,
    gate_x: Tensor,
    gate_a: Tensor,
    recurrent_param: Tensor,
    h0: Tensor | None = None,
    positions: Tensor | None = None,
    starts: Tensor | None = None,
    *,
    carry: str = AUTO,
    cell: str = "gated",
) -> tuple[Tensor, Tensor]:
    """``griffin_core_torch.gated_scan``."""
    save = saved_rows(x.element_size(), starts is not None) if wants_grad(x, gate_x, gate_a, recurrent_param, h0) else 0
    y, h, _ = scan(x, gate_x, gate_a, recurrent_param, h0, positions, _cuts(starts, x), cell, carry, save)
    return y, h


def linear_scan(
    x: Tensor,
    log_a: Tensor,
    h0: Tensor | None = None,
    reset: Tensor | None = None,
    starts: Tensor | None = None,
    *,
    carry: str = AUTO,
) -> tuple[Tensor, Tensor]:
    """``griffin_core_torch.linear_scan``."""
    save = saved_rows(x.element_size(), starts is not None) if wants_grad(x, log_a, h0) else 0
    y, h, _ = scan(x, None, log_a, None, h0, reset, _cuts(starts, x), "linear", carry, save)
    return y, h


def rg_lru(
    x: Tensor,
    params: Mapping[str, Tensor],
    h0: Tensor | None = None,
    positions: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``griffin_core_torch.rg_lru``."""
    weights = [params[name] for name in PARAMETERS]
    save = saved_rows(x.element_size(), starts is not None) if wants_grad(x, h0, *weights) else 0
    y, h, _ = fused(x, *weights, h0, positions, _cuts(starts, x), save)
    return y, h


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: Tensor | None = None,
    positions: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``griffin_core_torch.conv1d``."""
    return conv(x, weight, bias, state, positions, _cuts(starts, x))


def _cuts(starts: Tensor | None, x: Tensor) -> Tensor | None:
    return None if starts is None else torch.as_tensor(starts, device=x.device)


def _records(op: str, forward: object) -> tuple[Kernel, ...]:
    return tuple(
        Kernel(
            op,
            name,
            functools.partial(forward, carry=carry),  # type: ignore[arg-type]
            None,
            chained if carry in ("exact", "aggregate") else supports,
            exact=carry == "exact",
        )
        for name, carry in CARRIES.items()
    )


KERNELS = (
    Kernel("rg_lru", f"{NAME}-fused", rg_lru, None, multiplied),
    *_records("linear_scan", linear_scan),
    *_records("gated_scan", gated_scan),
    Kernel(
        "gated_scan", f"{NAME}-approx", functools.partial(gated_scan, cell="approx"), None, supports, approximate=True
    ),
    Kernel("conv1d", NAME, conv1d, None, supports),
)
