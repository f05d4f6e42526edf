"""The reference's operations against closed forms and brute force, one output element at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from griffin_core import reference
from griffin_core.errors import InputError
from griffin_core.reference.numeric import gelu_tanh, sigmoid, softplus
from griffin_core.reference.rg_lru import input_multiplier

RNG = np.random.default_rng(0)


def test_scan_of_a_constant_is_a_geometric_series() -> None:
    a, x, h0, time = 0.75, 2.0, 5.0, 40
    y, h = reference.linear_scan(np.full((1, time, 1), x), np.full((1, time, 1), math.log(a)), np.full((1, 1), h0))
    t = np.arange(1, time + 1)
    np.testing.assert_allclose(y[0, :, 0], a**t * h0 + x * (1 - a**t) / (1 - a), rtol=1e-14)
    assert h[0, 0] == y[0, -1, 0]


def test_scan_is_the_sum_over_products_of_decays() -> None:
    x, log_a, h0 = RNG.standard_normal((2, 9, 3)), -RNG.exponential(size=(2, 9, 3)), RNG.standard_normal((2, 3))
    reset = RNG.random((2, 9)) < 0.2
    y, _ = reference.linear_scan(x, log_a, h0, reset)
    for b, t, d in np.ndindex(2, 9, 3):
        starts = np.flatnonzero(reset[b, : t + 1])
        first = starts[-1] if len(starts) else 0
        terms = [x[b, s, d] * math.exp(log_a[b, s + 1 : t + 1, d].sum()) for s in range(first, t + 1)]
        if not len(starts):
            terms.append(h0[b, d] * math.exp(log_a[b, : t + 1, d].sum()))
        assert y[b, t, d] == pytest.approx(math.fsum(terms), rel=1e-13, abs=1e-13)


def test_scan_of_no_tokens_returns_the_state() -> None:
    h0 = RNG.standard_normal((2, 3))
    y, h = reference.linear_scan(np.empty((2, 0, 3)), np.empty((2, 0, 3)), h0)
    assert y.shape == (2, 0, 3)
    np.testing.assert_array_equal(h, h0)
    assert h is not h0
    _, h = reference.linear_scan(np.empty((2, 0, 3)), np.empty((2, 0, 3)))
    np.testing.assert_array_equal(h, np.zeros((2, 3)))


def test_decay_of_minus_infinity_is_exactly_zero() -> None:
    y, _ = reference.linear_scan(np.ones((1, 3, 1)), np.full((1, 3, 1), -np.inf), np.full((1, 1), 7.0))
    np.testing.assert_array_equal(y[0, :, 0], [1, 1, 1])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_reset_selects_so_that_nan_stays_behind(poison: float) -> None:
    x, log_a = np.ones((1, 4, 2)), np.full((1, 4, 2), -0.5)
    x[0, 1, 0] = poison
    reset = np.array([[False, False, True, False]])
    y, h = reference.linear_scan(x, log_a, np.full((1, 2), poison), reset)
    np.testing.assert_array_equal(y[0, 2], [1, 1])
    assert np.isfinite(h).all()
    positions = np.array([[3, 4, 0, 1]])
    y, h = reference.gated_scan(x, np.zeros_like(x), np.zeros_like(x), np.zeros(2), np.full((1, 2), poison), positions)
    assert np.isfinite(y[0, 2:]).all()
    y, state = reference.conv1d(x, np.ones((2, 1, 3)), np.zeros(2), np.full((1, 2, 2), poison), positions)
    np.testing.assert_array_equal(y[0, 2:], [[1, 1], [2, 2]])
    assert np.isfinite(state).all()


def test_gated_scan_is_the_papers_equation() -> None:
    x, gate_x, gate_a = RNG.standard_normal((3, 2, 7, 3))
    param, h = RNG.standard_normal(3), RNG.standard_normal((2, 3))
    positions = np.array([[4, 5, 6, 0, 1, 2, 3], [0, 1, 0, 0, 1, -1, -1]])
    y, last = reference.gated_scan(x, gate_x, gate_a, param, h, positions)
    for t in range(7):
        for b, d in np.ndindex(2, 3):
            if positions[b, t] < 0:
                assert y[b, t, d] == 0
                continue
            a = (1 / (1 + math.exp(param[d]))) ** (8 / (1 + math.exp(-gate_a[b, t, d])))
            u = x[b, t, d] / (1 + math.exp(-gate_x[b, t, d]))
            h[b, d] = u if positions[b, t] == 0 else a * h[b, d] + math.sqrt(1 - a * a) * u
            assert y[b, t, d] == pytest.approx(h[b, d], rel=1e-12)
    np.testing.assert_allclose(last, h, rtol=1e-12)


def test_without_positions_a_missing_state_is_a_new_document() -> None:
    x, gate_x, gate_a = RNG.standard_normal((3, 1, 4, 2))
    param = RNG.standard_normal(2)
    fresh, _ = reference.gated_scan(x, gate_x, gate_a, param)
    same, _ = reference.gated_scan(x, gate_x, gate_a, param, np.full((1, 2), np.nan), np.arange(4)[None])
    np.testing.assert_array_equal(fresh, same)
    zeros, _ = reference.gated_scan(x, gate_x, gate_a, param, np.zeros((1, 2)))
    assert not np.allclose(zeros[0, 0], fresh[0, 0])  # the multiplier of a later token is below 1


def test_block_diagonal_gates_are_a_dense_product_with_zeros_elsewhere() -> None:
    h, k = 3, 2
    x = RNG.standard_normal((1, 5, h * k))
    params = {
        "recurrent_param": RNG.standard_normal(h * k),
        **{f"{g}_gate_weight": RNG.standard_normal((h, k, k)) for g in ("input", "recurrent")},
        **{f"{g}_gate_bias": RNG.standard_normal((h, k)) for g in ("input", "recurrent")},
    }
    dense = np.zeros((2, h * k, h * k))
    for n, gate in enumerate(("input", "recurrent")):
        for block in range(h):
            piece = slice(block * k, (block + 1) * k)
            dense[n, piece, piece] = params[f"{gate}_gate_weight"][block]
    gates = [x @ dense[n] + params[f"{g}_gate_bias"].reshape(-1) for n, g in enumerate(("input", "recurrent"))]
    expected = reference.gated_scan(x, gates[0], gates[1], params["recurrent_param"])
    for got, want in zip(reference.rg_lru(x, params), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)


def test_conv_is_a_sum_over_the_documents_own_tokens() -> None:
    w, d = 4, 3
    x, weight, bias = RNG.standard_normal((2, 8, d)), RNG.standard_normal((d, 1, w)), RNG.standard_normal(d)
    state = RNG.standard_normal((2, w - 1, d))
    positions = np.array([[5, 6, 0, 1, 2, 3, 4, 5], [9, 10, 11, 0, 0, 1, -1, -1]])
    y, last = reference.conv1d(x, weight, bias, state, positions)
    for b in range(2):
        past = list(state[b])
        for t in range(8):
            if positions[b, t] < 0:
                np.testing.assert_array_equal(y[b, t], 0)
                continue
            past = [np.zeros(d)] * (w - 1) if positions[b, t] == 0 else past
            past = [*past, x[b, t]]
            expected = bias + sum(weight[:, 0, -1 - lag] * past[-1 - lag] for lag in range(w))
            np.testing.assert_allclose(y[b, t], expected, rtol=1e-12)
        np.testing.assert_array_equal(last[b], past[-(w - 1) :])


def test_conv_taps_are_oldest_first() -> None:
    y, state = reference.conv1d(np.array([[[1.0], [0], [0], [0]]]), np.array([[[1.0, 2, 3]]]), np.zeros(1))
    np.testing.assert_array_equal(y[0, :, 0], [3, 2, 1, 0])
    np.testing.assert_array_equal(state[0, :, 0], [0, 0])


def test_rms_norm() -> None:
    x, scale = RNG.standard_normal((2, 3, 5)) * 10, RNG.standard_normal(5)
    expected = [v / math.sqrt(sum(u * u for u in v) / 5 + 1e-6) * (1 + scale) for v in x.reshape(-1, 5)]
    np.testing.assert_allclose(reference.rms_norm(x, scale), np.reshape(expected, x.shape), rtol=1e-13)
    np.testing.assert_array_equal(reference.rms_norm(np.zeros((1, 1, 5)), scale), np.zeros((1, 1, 5)))


@pytest.mark.parametrize("exponent", [0, -1, -2, -3, -5, -7, -12])
def test_input_multiplier_does_not_cancel(exponent: int) -> None:
    """sqrt(1 - e^(2L)) by its series, which is exact to rounding for small L, and by definition for large."""
    L = -(10.0**exponent)
    z = -2 * L
    series = math.sqrt(-math.fsum((-z) ** n / math.factorial(n) for n in range(1, 60)))
    assert input_multiplier(np.full((1, 1, 1), L)).item() == pytest.approx(series, rel=1e-15)


def test_elementary_functions_at_the_ends() -> None:
    ends = np.array([-800.0, -50.0, 0.0, 50.0, 800.0])
    with np.errstate(under="ignore"):
        np.testing.assert_allclose(sigmoid(ends), [0, math.exp(-50), 0.5, 1, 1], rtol=1e-15)
        np.testing.assert_allclose(softplus(ends), [0, math.exp(-50), math.log(2), 50, 800], rtol=1e-15)
    x = np.linspace(-4, 4, 9)
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    np.testing.assert_allclose(gelu_tanh(x), exact, atol=5e-4)
    assert gelu_tanh(np.array(1.0)) == pytest.approx(0.8411919906082768, rel=1e-15)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ([0, 3], r"starts is \[0, 3\]; expected it to rise from 0 to the row's 5 tokens"),
        ([1, 5], "expected it to rise from 0"),
        ([0, 4, 2, 5], "expected it to rise"),
        ([5], r"starts is int64 of shape \(1,\)"),
    ],
)
def test_starts_that_do_not_cut_the_row(starts: list[int], message: str) -> None:
    x = np.zeros((1, 5, 2))
    with pytest.raises(InputError, match=message):
        reference.linear_scan(x, x, starts=np.array(starts))


def test_packed_rows_are_separate_calls() -> None:
    starts = np.array([0, 3, 3, 8])
    x, log_a = RNG.standard_normal((1, 8, 2)), -RNG.exponential(size=(1, 8, 2))
    h0, state = RNG.standard_normal((3, 2)), RNG.standard_normal((3, 2, 2))
    weight, bias = RNG.standard_normal((2, 1, 3)), RNG.standard_normal(2)
    y, h = reference.linear_scan(x, log_a, h0, starts=starts)
    z, after = reference.conv1d(x, weight, bias, state, starts=starts)
    for n in range(3):
        cut = slice(starts[n], starts[n + 1])
        one, last = reference.linear_scan(x[:, cut], log_a[:, cut], h0[n : n + 1])
        np.testing.assert_array_equal(y[:, cut], one)
        np.testing.assert_array_equal(h[n : n + 1], last)
        one, last = reference.conv1d(x[:, cut], weight, bias, state[n : n + 1])
        np.testing.assert_array_equal(z[:, cut], one)
        np.testing.assert_array_equal(after[n : n + 1], last)
    with pytest.raises(InputError, match="starts is given with batch 2"):
        reference.linear_scan(np.zeros((2, 8, 2)), np.zeros((2, 8, 2)), starts=starts)
