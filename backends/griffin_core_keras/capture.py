"""``recurrent_middle`` composed of its parts, so that what stands between them can be studied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keras import ops

from griffin_core import registry
from griffin_core.config import RG_LRU_C
from griffin_core_keras.engine import engine


def captured_middle(
    z: Any,
    params: Mapping[str, Any],
    h0: Any | None,
    conv: Any | None,
    positions: Any,
    kernel: str | None,
    record: Callable[[str, Any], Any],
) -> tuple[Any, Any, Any]:
    """The operation, with every activation given to ``record``; a kernel for the whole or ``rg_lru`` is not used."""
    part = registry.part_kernel("keras", "conv1d", kernel)
    z, conv = engine.conv1d(z, params["conv_weight"], params["conv_bias"], conv, positions, None, part)
    gate_x, gate_a = (_gate(z, params, gate) for gate in ("input_gate", "recurrent_gate"))
    scan = registry.part_kernel("keras", "gated_scan", kernel)
    param = params["recurrent_param"]
    y, h = engine.gated_scan(z, gate_x, gate_a, param, h0, positions, None, scan)
    input_gate, recurrent_gate = (ops.sigmoid(ops.cast(gate, "float32")) for gate in (gate_x, gate_a))
    log_a = -RG_LRU_C * ops.softplus(ops.cast(param, "float32")) * recurrent_gate
    seen = {"conv": z, "gate_x": gate_x, "gate_a": gate_a, "input_gate": input_gate}
    for name, value in {**seen, "recurrent_gate": recurrent_gate, "log_a": log_a, "h": y}.items():
        record(name, value)
    return y, h, conv


def _gate(z: Any, params: Mapping[str, Any], gate: str) -> Any:
    """Pre-activation [b t d] of one gate: its block-diagonal product, and its bias."""
    weight = ops.cast(params[f"{gate}_weight"], engine.dtype_name(z))
    batch, time, width = ops.shape(z)
    blocks = ops.einsum("bthk,hkj->bthj", ops.reshape(z, (batch, time, *weight.shape[:2])), weight)
    return ops.reshape(blocks + ops.cast(params[f"{gate}_bias"], engine.dtype_name(z)), (batch, time, width))
