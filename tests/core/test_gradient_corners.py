"""Gradients where naive forms give NaN, infinity or the wrong limit."""

from __future__ import annotations

import numpy as np
import pytest

from griffin_core import reference
from griffin_core.reference import gradients

ONE = np.ones((1, 3, 1))
H0 = np.full((1, 1), 0.7)
LATER = np.array([[1, 2, 3]])


def vjp(gate_x: float = 0.3, gate_a: float = 0.2, param: float = 0.1, positions=LATER, h0=H0, **options):
    return gradients.gated_scan_vjp(
        0.5 * ONE, gate_x * ONE, gate_a * ONE, np.full(1, param), h0, positions, ONE, np.ones((1, 1)), **options
    )


@pytest.mark.parametrize("gate_a", [-800.0, -100.0, -50.0, 0.0, 50.0, 800.0])
@pytest.mark.parametrize("gate_x", [-800.0, -50.0, 50.0, 800.0])
@pytest.mark.parametrize("param", [-800.0, -20.0, 0.0, 20.0, 800.0])
def test_finite_at_the_ends_of_every_gate(gate_x: float, gate_a: float, param: float) -> None:
    for gradient in vjp(gate_x, gate_a, param):
        assert np.isfinite(gradient).all()


def test_a_closed_gate_holds_the_state_and_passes_gradients_through_it() -> None:
    dx, dgate_x, dgate_a, dparam, dh0 = vjp(gate_a=-800.0)
    # a is exactly 1: the state is frozen, the input cannot enter, and every output sees h0.
    np.testing.assert_array_equal(dx, 0)
    np.testing.assert_array_equal(dgate_x, 0)
    np.testing.assert_array_equal(dgate_a, 0)
    np.testing.assert_array_equal(dparam, 0)
    np.testing.assert_array_equal(dh0, 4)


@pytest.mark.parametrize("gate_a", [-5.0, -15.0, -25.0, -35.0])
def test_the_limit_as_a_approaches_one(gate_a: float) -> None:
    """Only the last token: q = g (L a h - u a^2 L/m) with L/m = -sqrt(|L|/2) to first order in L."""
    x, u, g, h, param = 0.5, 0.5 / (1 + np.exp(-0.3)), 2.0, 0.7, 0.1
    r = 1 / (1 + np.exp(-gate_a))
    L = -8 * np.log1p(np.exp(param)) * r
    expected = g * (L * h + u * np.sqrt(-L / 2)) * (1 - r)
    one = ONE[:, :1]
    found = gradients.gated_scan_vjp(
        x * one, 0.3 * one, gate_a * one, np.full(1, param), H0, np.array([[1]]), one, np.ones((1, 1))
    )
    assert found[2][0, 0, 0] == pytest.approx(expected, rel=4 * abs(L) + 1e-15)


def test_the_official_clip_differs_where_it_is_said_to() -> None:
    L = 6e-9
    options = {
        "gate_a": np.log(L / 8 / np.log1p(np.exp(0.1))),
        "h0": np.zeros((1, 1)),
        "positions": np.array([[1, -1, -1]]),
    }
    # A state of zero leaves only the multiplier's part; the clip takes sqrt(2 |L|) for 1 / 2000 where it is less.
    exact, clipped = vjp(**options)[2][0, 0, 0], vjp(**options, max_gradient=1000.0)[2][0, 0, 0]
    assert clipped / exact == pytest.approx(np.sqrt(2 * L) * 2000, rel=1e-6)
    assert 1 - clipped / exact == pytest.approx(0.78, abs=0.005)
    np.testing.assert_allclose(vjp(max_gradient=1000.0)[2], vjp()[2], rtol=1e-12)


def test_a_reset_stops_every_gradient() -> None:
    x = np.array([[[np.nan], [1.0], [1.0]]])
    found = gradients.gated_scan_vjp(
        x, 0 * ONE, 0 * ONE, np.zeros(1), np.full((1, 1), np.nan), np.array([[5, 0, 1]]), ONE * [[[0], [1], [1]]]
    )
    dx, dgate_x, dgate_a, _, dh0 = found
    assert np.isfinite(dx).all()
    assert np.isfinite(dgate_x[0, 1:]).all()
    assert dgate_a[0, 1, 0] == 0
    assert dh0[0, 0] == 0
    _, dlog_a, dh0 = gradients.linear_scan_vjp(
        x, 0 * ONE, np.full((1, 1), np.nan), np.array([[False, True, False]]), ONE * [[[0], [1], [1]]]
    )
    assert dlog_a[0, 1, 0] == 0
    assert dh0[0, 0] == 0


def test_decay_zero_has_gradient_zero() -> None:
    log_a = np.array([[[-0.5], [-np.inf], [-0.5]]])
    x = np.array([[[np.inf], [1.0], [1.0]]])
    dx, dlog_a, dh0 = gradients.linear_scan_vjp(x, log_a, H0, None, ONE * [[[0], [1], [1]]])
    assert dlog_a[0, 1, 0] == 0
    np.testing.assert_allclose(dx[0, :, 0], [0, 1 + np.exp(-0.5), 1])
    assert dh0[0, 0] == 0


def test_padding_gets_and_gives_nothing() -> None:
    positions = np.array([[1, 2, -1]])
    poison = np.array([[[0.5], [0.5], [np.nan]]])
    dy = np.array([[[1.0], [1.0], [np.nan]]])
    params = {
        "recurrent_param": np.zeros(1),
        **{f"{g}_gate_weight": np.ones((1, 1, 1)) for g in ("input", "recurrent")},
        **{f"{g}_gate_bias": np.zeros((1, 1)) for g in ("input", "recurrent")},
        "conv_weight": np.ones((1, 1, 2)),
        "conv_bias": np.zeros(1),
    }
    args = (H0, np.ones((1, 1, 1)))
    found = gradients.recurrent_middle_vjp(poison, params, *args, positions, dy, np.ones((1, 1)), np.ones((1, 1, 1)))
    short = gradients.recurrent_middle_vjp(
        poison[:, :2], params, *args, positions[:, :2], dy[:, :2], np.ones((1, 1)), np.ones((1, 1, 1))
    )
    np.testing.assert_array_equal(found[0][:, 2], 0)
    np.testing.assert_array_equal(found[0][:, :2], short[0])
    for name in params:
        np.testing.assert_array_equal(found[1][name], short[1][name])
    for n in (2, 3):
        np.testing.assert_array_equal(found[n], short[n])
    y, h, _ = reference.recurrent_middle(poison, params, *args, positions)
    assert y[0, 2, 0] == 0
    assert np.isfinite(h).all()
