"""What the float32 bounds have room for: kernels with the largest errors that a GPU's special functions may have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import griffin_core_torch as backend
from griffin_core.testing import bounds, gradient_bounds
from griffin_core.testing.cases import CORNERS, Case
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.properties import gradients, values
from griffin_core.testing.subjects import from_kernel
from griffin_core.testing.tolerance import Ledger, assert_close
from griffin_core.testing.trial import Trial
from griffin_core_torch.triton import loading
from griffin_core_torch.triton.records import GATE_ERROR, KERNELS

MIXED = Case(b=2, t=21, d=17, decay="mixed", resets="edges", carry=True, pads=3)
SHORT = [case for case in CORNERS if case.t < 64]


def closest(op: str, name: str, case: Case, property_: Any) -> float:
    """The largest error of a kernel in units of its bound."""
    record = next(kernel for kernel in KERNELS if (kernel.op, kernel.name) == (op, name))
    ledger = Ledger()
    with loading.interpreting("worst"):
        try:
            property_(Trial(from_kernel(record, OPERATIONS[op], "torch", backend, ""), case, ledger))
        except AssertionError:
            assert ledger.ratio > 1.0  # it failed by its size, and by nothing else
    return ledger.ratio


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("op", "name"), [("gated_scan", "triton-exact"), ("linear_scan", "triton-aggregate")])
def test_a_gpus_worst_errors_keep_the_bounds(op: str, name: str) -> None:
    found = closest(op, name, MIXED, values.reference)
    assert 0.5 < found <= 1.0  # more than the exact functions' error, so it was put in
    assert closest(op, name, MIXED, gradients.gradient) <= 1.0


@pytest.mark.prove
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("case", SHORT, ids=str)
def test_a_gpus_worst_errors_on_every_corner(case: Case) -> None:
    """A gate of e^-49, whose exponent is rounded twice, has no room left for the machine's own error: 1.06 of it."""
    limit = 1.1 if case.decay == "zero" else 1.0
    for property_ in (values.reference, gradients.gradient):
        assert closest("gated_scan", "triton-aggregate", case, property_) <= limit


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("decay", ["1e-1", "1e-3", "1e-6"])
def test_rough_gates_keep_the_bound_that_they_state(decay: str) -> None:
    """With a GPU's error put in; and that error is there, beyond what the exact kernels may have."""
    record = next(kernel for kernel in KERNELS if kernel.name == "triton-approx")
    operation = OPERATIONS["gated_scan"]
    trial = Trial(from_kernel(record, operation, "torch", backend, ""), MIXED.replace(decay=decay))
    inputs = trial.inputs()
    seeds = {"y": inputs["x"], "h": inputs["h0"]}
    with loading.interpreting("worst"):
        got, pulled = trial.run(inputs), trial.subject.gradient(inputs, seeds)
    analysed, expected = bounds.given_gates(inputs, GATE_ERROR), operation.reference(inputs)
    limits, slopes = bounds.states(analysed.scanned), operation.reference_gradient(inputs, seeds)
    for name in ("y", "h"):
        assert_close(got[name], expected[name], limits[name], dtype="float32", what=name, call=decay)
        exact = bounds.states(bounds.given_gates(inputs).scanned)[name]
        assert (np.abs(got[name] - expected[name]) > 10 * exact).any()
    errors = gradient_bounds._gated(analysed, inputs, seeds)
    for name, value in slopes.items():
        assert_close(pulled[name], value, errors[name].error, dtype="float32", what=f"d{name}", call=decay)


def test_rough_gates_are_chosen_by_name_only() -> None:
    """What supports them supports the kernel before them: auto never comes to them."""
    found = [kernel for kernel in KERNELS if kernel.op == "gated_scan"]
    assert found[-1].name == "triton-approx"
    assert found[0].supports is found[-1].supports
