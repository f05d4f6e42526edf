"""Recurrent middle with its gates, decays and states recorded, for study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from griffin_core_torch.conv.compose import conv1d
from griffin_core_torch.gates import block_gates
from griffin_core_torch.scan.compose import gated_scan
from griffin_core_torch.scan.dispatch import part_kernel
from griffin_core_torch.scan.gated_eager import decay_rate


def captured_middle(
    x: Tensor,
    params: Mapping[str, Tensor],
    h0: Tensor | None,
    conv_state: Tensor | None,
    positions: Tensor,
    kernel: str | None,
    record: Callable[[str, Tensor], Any],
) -> tuple[Tensor, Tensor, Tensor]:
    """``recurrent_middle`` composed of its parts; a kernel for the whole or for ``rg_lru`` is not used.

    Records conv, gate_x, gate_a (pre-activations), input_gate, recurrent_gate, log_a (float32) and h, [b t d].
    """
    part = part_kernel("conv1d", kernel)
    z, conv_state = conv1d(x, params["conv_weight"], params["conv_bias"], conv_state, positions, None, part)
    gate_x, gate_a = block_gates(z, params)
    recurrent_gate = torch.sigmoid(gate_a.float())
    for name, value in (
        ("conv", z),
        ("gate_x", gate_x),
        ("gate_a", gate_a),
        ("input_gate", torch.sigmoid(gate_x.float())),
        ("recurrent_gate", recurrent_gate),
        ("log_a", recurrent_gate * decay_rate(params["recurrent_param"], torch.float32)),
    ):
        record(name, value)
    scan = part_kernel("gated_scan", kernel)
    y, h = gated_scan(z, gate_x, gate_a, params["recurrent_param"], h0, positions, None, scan)
    record("h", y)
    return y, h, conv_state
