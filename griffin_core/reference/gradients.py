"""Hand-written gradients of the recurrent operations: the exact vector-Jacobian products, in float64.

With L = log a, m = sqrt(1 - a^2), u = sigmoid(gate_x) x and g_t = dy_t + a_{t+1} g_{t+1}, everything about the
decay goes through q = L dL/dL = g (L a h_{t-1} - u a^2 L / m), which stays finite as a approaches 1:
L / m tends to -sqrt(|L| / 2).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from griffin_core.checks import PAD
from griffin_core.reference.conv1d import conv1d
from griffin_core.reference.conv_gradient import conv1d_vjp
from griffin_core.reference.numeric import default_positions, quiet, sigmoid, softplus, wide
from griffin_core.reference.packing import gradients_by_sequence, restarted_positions
from griffin_core.reference.rg_lru import block_diagonal, input_multiplier, log_decay, scan_terms
from griffin_core.reference.scan import decay_scan
from griffin_core.shapes import Array

__all__ = ["conv1d_vjp", "gated_scan_vjp", "linear_scan_vjp", "recurrent_middle_vjp", "rg_lru_vjp"]

Gradients = dict[str, Array]


@quiet
def linear_scan_vjp(
    x: Array,
    log_a: Array,
    h0: Array | None,
    reset: Array | None,
    dy: Array,
    dh: Array | None = None,
    starts: Array | None = None,
) -> tuple[Array, Array, Array | None]:
    """Gradients of ``linear_scan`` for cotangents ``dy`` [b t d] and ``dh`` [b d] (None is zeros).

    Returns:
        (dx, dlog_a [b t d], dh0 [b d] or None as ``h0`` is), float64. dlog_a is 0 where a is 0 and at resets.
    """
    if starts is not None:
        dx, dlog_a, dh0 = gradients_by_sequence(
            lambda x, log_a, reset, dy, h0, dh: linear_scan_vjp(x, log_a, h0, reset, dy, dh),
            starts,
            (x, log_a, reset, dy),
            (h0, dh),
            ("time", "time", "row"),
        )
        return dx, dlog_a, dh0
    a = np.exp(wide(log_a))
    y, _ = decay_scan(wide(x), a, h0, reset)
    g, dh0 = _reverse_scan(a, reset, dy, dh)
    cut = (a == 0) if reset is None else (a == 0) | reset[..., None]
    dlog_a = np.where(cut, 0.0, g * a * _previous(y, h0))
    return g, dlog_a, None if h0 is None else dh0


@quiet
def gated_scan_vjp(
    x: Array,
    gate_x: Array,
    gate_a: Array,
    recurrent_param: Array,
    h0: Array | None,
    positions: Array | None,
    dy: Array,
    dh: Array | None = None,
    starts: Array | None = None,
    max_gradient: float | None = None,
) -> tuple[Array, Array, Array, Array, Array | None]:
    """Gradients of ``gated_scan`` for cotangents ``dy`` [b t d] and ``dh`` [b d] (None is zeros).

    Args:
        max_gradient: None is exact; 1000 is the official code's clip of the square root's derivative, which
            is wrong by 78 % at log a = -6e-9 and exists here for comparisons only.

    Returns:
        (dx, dgate_x, dgate_a [b t d], drecurrent_param [d], dh0 [b d] or None as ``h0`` is), float64.
    """
    if starts is not None:
        dx, dgate_x, dgate_a, dparam, dh0 = gradients_by_sequence(
            lambda x, gate_x, gate_a, positions, dy, h0, dh: gated_scan_vjp(
                x, gate_x, gate_a, recurrent_param, h0, positions, dy, dh, max_gradient=max_gradient
            ),
            starts,
            (x, gate_x, gate_a, positions, dy),
            (h0, dh),
            ("time", "time", "time", "sum", "row"),
        )
        return dx, dgate_x, dgate_a, dparam, dh0
    positions = default_positions(x, fresh=h0 is None) if positions is None else positions
    reset, pad = (positions == 0)[..., None], (positions == PAD)[..., None]
    scan_input, selected = scan_terms(x, gate_x, gate_a, recurrent_param, positions)
    y, _ = decay_scan(scan_input, np.exp(selected), h0, reset[..., 0])
    g, dh0 = _reverse_scan(np.exp(selected), reset[..., 0], np.where(pad, 0.0, wide(dy)), dh)
    gate, log_a = sigmoid(wide(gate_x)), log_decay(sigmoid(wide(gate_a)), recurrent_param)
    scaled = np.where(reset, 1.0, input_multiplier(log_a)) * g
    dx = np.where(pad, 0.0, scaled * gate)
    dgate_x = np.where(pad, 0.0, scaled * gate * sigmoid(-wide(gate_x)) * wide(x))
    q = np.where(reset | pad, 0.0, g * _decay_factor(log_a, _previous(y, h0), gate * wide(x), max_gradient))
    dparam = _softplus_slope(wide(recurrent_param)) * q.sum(axis=(0, 1))
    return dx, dgate_x, sigmoid(-wide(gate_a)) * q, dparam, None if h0 is None else dh0


def rg_lru_vjp(
    x: Array,
    params: Mapping[str, Array],
    h0: Array | None,
    positions: Array | None,
    dy: Array,
    dh: Array | None = None,
    starts: Array | None = None,
    max_gradient: float | None = None,
) -> tuple[Array, Gradients, Array | None]:
    """Gradients of ``rg_lru``: (dx [b t d], one per parameter, dh0 [b d] or None), float64."""
    gate_x = block_diagonal(x, params["input_gate_weight"], params["input_gate_bias"])
    gate_a = block_diagonal(x, params["recurrent_gate_weight"], params["recurrent_gate_bias"])
    dx, dgate_x, dgate_a, dparam, dh0 = gated_scan_vjp(
        x, gate_x, gate_a, params["recurrent_param"], h0, positions, dy, dh, starts, max_gradient
    )
    real = wide(x) if positions is None else np.where((positions == PAD)[..., None], 0.0, wide(x))
    gradients = {"recurrent_param": dparam}
    for name, dgate in (("input_gate", dgate_x), ("recurrent_gate", dgate_a)):
        weight = wide(params[name + "_weight"])
        dblocks = dgate.reshape(*x.shape[:2], *weight.shape[:2])
        dx = dx + np.einsum("bthj,hkj->bthk", dblocks, weight).reshape(x.shape)
        gradients[name + "_weight"] = np.einsum("bthk,bthj->hkj", real.reshape(dblocks.shape), dblocks)
        gradients[name + "_bias"] = dblocks.sum(axis=(0, 1))
    return dx, gradients, dh0


def recurrent_middle_vjp(
    x: Array,
    params: Mapping[str, Array],
    h0: Array | None,
    conv_state: Array | None,
    positions: Array | None,
    dy: Array,
    dh: Array | None = None,
    dconv_state: Array | None = None,
    starts: Array | None = None,
    max_gradient: float | None = None,
) -> tuple[Array, Gradients, Array | None, Array | None]:
    """Gradients of ``recurrent_middle``: (dx, one per parameter, dh0, dconv_state0), float64."""
    if positions is None:
        positions = default_positions(x, fresh=h0 is None and conv_state is None)
        positions = positions if starts is None else restarted_positions(positions, starts)
    weight, bias = params["conv_weight"], params["conv_bias"]
    z, _ = conv1d(x, weight, bias, conv_state, positions, starts)
    dz, gradients, dh0 = rg_lru_vjp(z, params, h0, positions, dy, dh, starts, max_gradient)
    dx, dweight, dbias, dstate = conv1d_vjp(x, weight, bias, conv_state, positions, dz, dconv_state, starts)
    return dx, {**gradients, "conv_weight": dweight, "conv_bias": dbias}, dh0, dstate


def _reverse_scan(a: Array, reset: Array | None, dy: Array, dh: Array | None) -> tuple[Array, Array]:
    """(g [b t d], dh0 [b d]): g_t = dy_t + a_{t+1} g_{t+1}, nothing crossing a reset."""
    batch, time, width = a.shape
    carry = np.zeros((batch, width)) if dh is None else np.array(dh, np.float64)
    g = np.empty(a.shape)
    for t in reversed(range(time)):
        g[:, t] = wide(dy[:, t]) + carry
        carry = a[:, t] * g[:, t]
        if reset is not None:
            carry = np.where(reset[:, t, None], 0.0, carry)
    return g, carry


def _previous(y: Array, h0: Array | None) -> Array:
    """h_{t-1} [b t d]."""
    first = np.zeros_like(y[:, :1]) if h0 is None else wide(h0)[:, None][:, : y.shape[1]]
    return np.concatenate([first, y[:, :-1]], axis=1)


def _decay_factor(log_a: Array, previous: Array, u: Array, max_gradient: float | None) -> Array:
    """L a h_{t-1} - u a^2 L / m: q without the factor g; 0 where a is 0."""
    a, m = np.exp(log_a), input_multiplier(log_a)
    if max_gradient is None:
        ratio = np.where(log_a == 0, 0.5, log_a / np.expm1(2.0 * log_a))  # |L| / m^2
        slope = -np.sqrt(-log_a) * np.sqrt(ratio)
    else:
        slope = log_a / np.maximum(m, 0.5 / max_gradient)
    return np.where(a == 0, 0.0, log_a * a * previous - u * a * a * slope)


def _softplus_slope(param: Array) -> Array:
    """sigmoid(p) / softplus(p), which tends to 1 as p falls."""
    value = softplus(param)
    return np.where(value == 0, 1.0, sigmoid(param) / value)
