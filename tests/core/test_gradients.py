"""The hand-written gradients against central differences, and at the corners where other forms fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from griffin_core import reference
from griffin_core.reference import gradients

RNG = np.random.default_rng(2)
B, T, H, K, W = 2, 8, 2, 2, 4
D = H * K
POSITIONS = np.array([[3, 4, 5, 0, 1, 0, 1, 2], [0, 1, 2, 3, 4, -1, -1, -1]])
RESET = RNG.random((B, T)) < 0.3
# A central difference with step 1e-5 errs by about 1e-10 of truncation and 1e-16 / 1e-5 of rounding.
STEP, TOLERANCE = 1e-5, 1e-8


def drawn() -> dict[str, np.ndarray]:
    normal = RNG.standard_normal
    return {
        "x": normal((B, T, D)),
        "log_a": -RNG.exponential(size=(B, T, D)),
        "gate_x": normal((B, T, D)),
        "gate_a": normal((B, T, D)),
        "h0": normal((B, D)),
        "conv_state": normal((B, W - 1, D)),
        "recurrent_param": normal(D),
        "input_gate_weight": normal((H, K, K)),
        "input_gate_bias": normal((H, K)),
        "recurrent_gate_weight": normal((H, K, K)),
        "recurrent_gate_bias": normal((H, K)),
        "conv_weight": normal((D, 1, W)),
        "conv_bias": normal(D),
        "dy": normal((B, T, D)),
        "dh": normal((B, D)),
        "dconv_state": normal((B, W - 1, D)),
    }


def check(operation: Callable, inputs: dict, cotangents: tuple, found: dict) -> None:
    """Each gradient against central differences of sum(output * cotangent), element by element."""

    def loss(**changed: np.ndarray) -> float:
        outputs = operation(**{**inputs, **changed})
        return sum(float((y * dy).sum()) for y, dy in zip(outputs, cotangents, strict=True))

    for name, gradient in found.items():
        numeric = np.zeros_like(inputs[name])
        for index in np.ndindex(*inputs[name].shape):
            step = np.zeros_like(inputs[name])
            step[index] = STEP
            numeric[index] = loss(**{name: inputs[name] + step}) - loss(**{name: inputs[name] - step})
        numeric /= 2 * STEP
        scale = max(1.0, np.abs(numeric).max())
        np.testing.assert_allclose(gradient, numeric, rtol=0, atol=TOLERANCE * scale, err_msg=name)


def pick(values: dict, *names: str) -> dict:
    return {name: values[name] for name in names}


@pytest.mark.parametrize("reset", [None, RESET, np.ones((B, T), bool)])
def test_linear_scan(reset: np.ndarray | None) -> None:
    v = drawn()
    dx, dlog_a, dh0 = gradients.linear_scan_vjp(v["x"], v["log_a"], v["h0"], reset, v["dy"], v["dh"])
    inputs = {**pick(v, "x", "log_a", "h0"), "reset": reset}
    check(reference.linear_scan, inputs, (v["dy"], v["dh"]), {"x": dx, "log_a": dlog_a, "h0": dh0})


@pytest.mark.parametrize("positions", [None, POSITIONS, np.zeros((B, T), int)])
def test_gated_scan(positions: np.ndarray | None) -> None:
    v = drawn()
    names = ("x", "gate_x", "gate_a", "recurrent_param", "h0")
    found = gradients.gated_scan_vjp(*(v[n] for n in names), positions, v["dy"], v["dh"])
    inputs = {**pick(v, *names), "positions": positions}
    check(reference.gated_scan, inputs, (v["dy"], v["dh"]), dict(zip(names, found, strict=True)))


@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_conv1d(positions: np.ndarray | None) -> None:
    v = drawn()
    names = ("x", "conv_weight", "conv_bias", "conv_state")
    found = gradients.conv1d_vjp(*(v[n] for n in names), positions, v["dy"], v["dconv_state"])

    def conv(conv_weight, conv_bias, conv_state, x):
        return reference.conv1d(x, conv_weight, conv_bias, conv_state, positions)

    check(conv, pick(v, *names), (v["dy"], v["dconv_state"]), dict(zip(names, found, strict=True)))


PARAMS = ("recurrent_param", "input_gate_weight", "input_gate_bias", "recurrent_gate_weight", "recurrent_gate_bias")


@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_rg_lru(positions: np.ndarray | None) -> None:
    v = drawn()
    dx, dparams, dh0 = gradients.rg_lru_vjp(v["x"], pick(v, *PARAMS), v["h0"], positions, v["dy"], v["dh"])

    def layer(x, h0, **params):
        return reference.rg_lru(x, params, h0, positions)

    assert set(dparams) == set(PARAMS)
    check(layer, pick(v, "x", "h0", *PARAMS), (v["dy"], v["dh"]), {"x": dx, "h0": dh0, **dparams})


@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_recurrent_middle(positions: np.ndarray | None) -> None:
    v = drawn()
    params = pick(v, *PARAMS, "conv_weight", "conv_bias")
    cotangents = (v["dy"], v["dh"], v["dconv_state"])
    dx, dparams, dh0, dstate = gradients.recurrent_middle_vjp(
        v["x"], params, v["h0"], v["conv_state"], positions, *cotangents
    )

    def middle(x, h0, conv_state, **params):
        return reference.recurrent_middle(x, params, h0, conv_state, positions)

    found = {"x": dx, "h0": dh0, "conv_state": dstate, **dparams}
    check(middle, {**pick(v, "x", "h0", "conv_state"), **params}, cotangents, found)


def test_absent_states_and_cotangents() -> None:
    v = drawn()
    for absent in (None, np.zeros((B, D))):
        found = gradients.linear_scan_vjp(v["x"], v["log_a"], None, None, v["dy"], absent)
        same = gradients.linear_scan_vjp(v["x"], v["log_a"], np.zeros((B, D)), None, v["dy"], np.zeros((B, D)))
        assert found[2] is None
        for got, want in zip(found[:2], same[:2], strict=True):
            np.testing.assert_array_equal(got, want)
    params = pick(v, *PARAMS, "conv_weight", "conv_bias")
    *_, dh0, dstate = gradients.recurrent_middle_vjp(v["x"], params, None, None, None, v["dy"])
    assert dh0 is None
    assert dstate is None


def test_no_tokens_pass_the_cotangent_through() -> None:
    v, empty = drawn(), np.empty((B, 0, D))
    dx, dlog_a, dh0 = gradients.linear_scan_vjp(empty, empty, v["h0"], None, empty, v["dh"])
    assert dx.shape == dlog_a.shape == (B, 0, D)
    np.testing.assert_array_equal(dh0, v["dh"])


def test_a_cut_anywhere_chains() -> None:
    """dh0 of the second piece is dh of the first: gradients of pieces are the gradients of the whole."""
    v = drawn()
    names = ("x", "gate_x", "gate_a")
    param = v["recurrent_param"]
    whole = gradients.gated_scan_vjp(*(v[n] for n in names), param, v["h0"], POSITIONS, v["dy"], v["dh"])
    for cut in range(T + 1):
        first = [v[n][:, :cut] for n in names]
        rest = [v[n][:, cut:] for n in names]
        _, h = reference.gated_scan(*first, param, v["h0"], POSITIONS[:, :cut])
        after = gradients.gated_scan_vjp(*rest, param, h, POSITIONS[:, cut:], v["dy"][:, cut:], v["dh"])
        before = gradients.gated_scan_vjp(*first, param, v["h0"], POSITIONS[:, :cut], v["dy"][:, :cut], after[4])
        for n in range(3):
            np.testing.assert_allclose(np.concatenate([before[n], after[n]], axis=1), whole[n], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(before[3] + after[3], whole[3], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(before[4], whole[4], rtol=1e-12, atol=1e-14)


def test_packed_rows_are_separate_gradients() -> None:
    v, starts = drawn(), np.array([0, 3, 3, T])
    one = {n: v[n][:1] for n in ("x", "dy")}
    h0, dh = RNG.standard_normal((2, 3, D))
    state, dstate = RNG.standard_normal((2, 3, W - 1, D))
    params = pick(v, *PARAMS, "conv_weight", "conv_bias")
    found = gradients.recurrent_middle_vjp(one["x"], params, h0, state, None, one["dy"], dh, dstate, starts)
    sums = dict.fromkeys(params, 0.0)
    for n in range(3):
        cut, row = slice(starts[n], starts[n + 1]), slice(n, n + 1)
        dx, dparams, dh0, dconv = gradients.recurrent_middle_vjp(
            one["x"][:, cut], params, h0[row], state[row], None, one["dy"][:, cut], dh[row], dstate[row]
        )
        np.testing.assert_array_equal(found[0][:, cut], dx)
        np.testing.assert_array_equal(found[2][row], dh0)
        np.testing.assert_array_equal(found[3][row], dconv)
        sums = {name: sums[name] + value for name, value in dparams.items()}
    for name, value in sums.items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-13)
