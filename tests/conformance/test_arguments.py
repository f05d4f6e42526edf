"""Every backend refuses arguments that do not fit, in the same words."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from griffin_core.errors import InputError
from griffin_core.testing.cases import Case
from griffin_core.testing.operations import OPERATIONS

CASE = Case(b=2, t=5, d=4, taps=3, blocks=2, carry=True, resets="random")


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("op", "changed", "message"),
    [
        ("linear_scan", {"x": zeros(5, 4)}, r"linear_scan: x has shape \(5, 4\); expected three axes"),
        ("linear_scan", {"log_a": zeros(2, 4, 4)}, r"linear_scan: log_a has shape \(2, 4, 4\); expected \(2, 5, 4\)"),
        ("linear_scan", {"reset": np.zeros((2, 4), bool)}, r"reset has shape \(2, 4\); expected \(2, 5\)"),
        ("gated_scan", {"gate_a": zeros(2, 5, 3)}, r"gated_scan: gate_a has shape \(2, 5, 3\); expected \(2, 5, 4\)"),
        ("gated_scan", {"recurrent_param": zeros(3)}, r"recurrent_param has shape \(3,\); expected \(4,\)"),
        ("gated_scan", {"h0": zeros(1, 4)}, r"gated_scan: h0 has shape \(1, 4\); expected \(2, 4\)"),
        ("rg_lru", {"positions": np.zeros((2, 6), np.int32)}, r"rg_lru: positions has shape \(2, 6\)"),
        ("rg_lru", {"input_gate_weight": None}, "rg_lru: params has no 'input_gate_weight'; expected recurrent_param,"),
        ("rg_lru", {"input_gate_weight": zeros(3, 2, 2)}, "has 3 blocks; expected a number that divides the width 4"),
        ("rg_lru", {"recurrent_gate_bias": zeros(2, 3)}, r"recurrent_gate_bias has shape \(2, 3\); expected \(2, 2\)"),
        ("recurrent_middle", {"conv_weight": zeros(4, 3)}, r"conv_weight has shape \(4, 3\); expected \(4, 1, 3\)"),
        ("recurrent_middle", {"conv_bias": None}, "recurrent_middle: params has no 'conv_bias'"),
        ("conv1d", {"bias": zeros(1)}, r"conv1d: bias has shape \(1,\); expected \(4,\)"),
        ("conv1d", {"state": zeros(2, 3, 4)}, r"conv1d: state has shape \(2, 3, 4\); expected \(2, 2, 4\)"),
    ],
)
def test_shapes_are_refused(backend: ModuleType, op: str, changed: dict[str, Any], message: str) -> None:
    record = OPERATIONS[op]
    inputs = {**record.make(CASE), **changed}
    given = [_native(backend, argument) for argument in record.arrange(inputs)]
    with pytest.raises(InputError, match=message):
        getattr(backend, op)(*given)


@pytest.mark.parametrize("params", [None, [1.0]])
def test_parameters_are_a_dict(backend: ModuleType, params: Any) -> None:
    with pytest.raises(InputError, match=f"params is a {type(params).__name__}; expected a dict"):
        backend.rg_lru(backend.from_numpy(zeros(2, 5, 4)), params)


def _native(backend: ModuleType, argument: Any) -> Any:
    if isinstance(argument, dict):
        return {name: backend.from_numpy(value) for name, value in argument.items() if value is not None}
    return None if argument is None else backend.from_numpy(argument)
