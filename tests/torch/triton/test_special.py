"""What the float32 bounds have room for: kernels with the largest errors that a GPU's special functions may have."""

from __future__ import annotations

from typing import Any

import pytest

import griffin_core_torch as backend
from griffin_core.testing.cases import CORNERS, Case
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.properties import gradients, values
from griffin_core.testing.subjects import from_kernel
from griffin_core.testing.tolerance import Ledger
from griffin_core.testing.trial import Trial
from griffin_core_torch.triton import loading
from griffin_core_torch.triton.records import KERNELS

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
