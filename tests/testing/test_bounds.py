"""The error bounds: derived from the operation's own formulas, met by right float32 loops, not by wrong ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from griffin_core.errors import InputError
from griffin_core.testing import bounds
from griffin_core.testing.analysis import exact, multiplier, sigmoid, softplus
from griffin_core.testing.broken import controls
from griffin_core.testing.cases import CORNERS, DECAYS, LONG, Case
from griffin_core.testing.operations import OPERATIONS

U = 2.0**-24
POWERS = [kind for kind in DECAYS if kind.startswith("1e")]


def second_derivation(op: str, case: Case) -> dict[str, np.ndarray]:
    """y and h as the bounds' own arithmetic computes them."""
    inputs = OPERATIONS[op].make(case)
    if op == "conv1d":
        return {"y": bounds.convolution(inputs).y.value}
    if op == "linear_scan":
        terms = bounds.linear_scan(inputs)
    elif op == "gated_scan":
        terms = bounds.given_gates(inputs).scanned
    else:
        terms = bounds.rg_lru(inputs).scanned if op == "rg_lru" else bounds.recurrent_middle(inputs)[1].scanned
    return {"y": np.where(terms.pad[..., None], 0.0, terms.h.value), "h": terms.last.value}


@pytest.mark.parametrize("op", ["linear_scan", "gated_scan", "rg_lru", "recurrent_middle", "conv1d"])
def test_the_bounds_rederive_the_reference(op: str) -> None:
    for case in CORNERS:
        expected = OPERATIONS[op].reference(OPERATIONS[op].make(case))
        for name, value in second_derivation(op, case).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-11, atol=1e-11, err_msg=f"{name} of {case}")


@pytest.mark.parametrize("decay", [kind for kind in DECAYS if kind != "mixed"])
def test_a_right_float32_scan_stays_under_half_of_its_bound(decay: str) -> None:
    op = OPERATIONS["linear_scan"]
    for seed in range(3):
        inputs = op.make(Case(b=2, t=300, d=16, seed=seed, decay=decay, carry=True, resets="random"))
        y, _ = controls.linear_scan(*op.arrange(inputs))
        error = np.abs(y - op.reference(inputs)["y"])
        assert (error <= 0.5 * op.bounds(inputs)["y"] + 2.0**-126).all()


def test_the_bound_follows_the_recurrence_not_a_constant() -> None:
    """Near a = 1 a right loop errs by many roundoffs of h, which a constant factor would reject."""
    op = OPERATIONS["linear_scan"]
    inputs = op.make(dataclasses.replace(LONG, seed=1, d=32))
    truth = op.reference(inputs)["y"]
    y, _ = controls.linear_scan(*op.arrange(inputs))
    error, bound = np.abs(y - truth), op.bounds(inputs)["y"]
    assert (error / (U * np.abs(truth).max())).max() > 4.0
    assert (error <= bound).all()
    assert (bound[:, 0] <= 8 * U * (np.abs(truth[:, 0]) + np.abs(inputs["h0"]))).all()


@pytest.mark.parametrize("decay", POWERS)
def test_the_bound_notices_one_part_in_ten_thousand(decay: str) -> None:
    """Not so wide that anything passes: h scaled by 1 + 1e-4 is refused at every decay."""
    for op in (OPERATIONS["linear_scan"], OPERATIONS["gated_scan"]):
        inputs = op.make(Case(b=1, t=64, d=8, decay=decay, seed=3))
        truth = op.reference(inputs)["y"]
        assert (np.abs(truth) * 1e-4 > op.bounds(inputs)["y"]).mean() > 0.9


def test_elementary_errors_cover_float32() -> None:
    z = np.concatenate([np.linspace(-110, 110, 2001), -np.logspace(-9, 2, 200)]).astype(np.float32)
    for function, approx in (
        (controls.sigmoid, sigmoid(exact(z))),
        (controls.softplus, softplus(z)),
        (controls.multiplier, multiplier(exact(np.minimum(z, 0)))),
    ):
        argument = np.minimum(z, 0) if function is controls.multiplier else z
        error = np.abs(function(argument).astype(np.float64) - approx.value)
        assert (error <= approx.error).all()
        assert (approx.error <= 240 * U * approx.value + 1e-18).all()


def test_an_underflowing_gate_may_be_zero() -> None:
    """sigmoid(-120) is 0 in float32 and 8e-53 in float64; the multiplier then is 0 or 1e-26."""
    op = OPERATIONS["gated_scan"]
    case = Case(b=1, t=4, d=3, decay="one", carry=True)
    inputs = op.make(case)
    y, _ = controls.gated_scan(*op.arrange(inputs))
    assert (np.abs(y - op.reference(inputs)["y"]) <= op.bounds(inputs)["y"] + 2.0**-126).all()
    np.testing.assert_array_equal(y[:, -1], inputs["h0"])


def test_an_operation_without_a_gradient_names_the_judgement_that_covers_it() -> None:
    op = OPERATIONS["local_attention"]
    inputs = op.make(Case(t=3, d=2))
    with pytest.raises(InputError, match=r"local_attention has no gradient .* the whole model's"):
        op.reference_gradient(inputs, {})
    with pytest.raises(InputError, match="local_attention has no gradient"):
        op.gradient_bounds(inputs, {})
