"""How far a right gradient of each recurrent operation may be from the reference's hand-written one.

The backward scan has the forward scan's form, so it has its bound. The h that a backward pass reads may be the
y that the forward pass stored (in y's dtype); everything else is float32, as in ``bounds``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from griffin_core.reference.gradients import conv1d_vjp
from griffin_core.shapes import Array
from griffin_core.testing import bounds
from griffin_core.testing.analysis import (
    Approx,
    decay_over_multiplier,
    einsum,
    exact,
    flip,
    one_minus,
    scan,
    select,
    sigmoid,
    where_zero,
)
from griffin_core.testing.bounds import Convolved, Gated, Scanned
from griffin_core.testing.inputs import Inputs
from griffin_core.testing.tolerance import U, dtype_name

Errors = dict[str, Array]


def linear_scan(inputs: Inputs, cotangents: Inputs) -> Errors:
    """Bounds of dx, dlog_a, dh0."""
    terms = bounds.linear_scan(inputs)
    g, dh0 = _reverse(terms, cotangents["y"], cotangents["h"])
    previous = terms.previous.stored(dtype_name(inputs["x"].dtype))
    dlog_a = where_zero(terms.reset[..., None], g * (_rounded(terms.a) * previous))
    return {"x": g.error, "log_a": dlog_a.error, "h0": dh0.error}


def gated_scan(inputs: Inputs, cotangents: Inputs) -> Errors:
    """Bounds of dx, both gates', the decay parameter's and dh0."""
    gradients = _gated(bounds.given_gates(inputs), inputs, cotangents)
    return {name: gradient.error for name, gradient in gradients.items()}


def rg_lru(inputs: Inputs, cotangents: Inputs) -> Errors:
    """Bounds of dx, every parameter's and dh0."""
    gradients = _rg_lru(bounds.rg_lru(inputs), inputs, cotangents)
    return {name: gradient.error for name, gradient in gradients.items()}


def conv1d(inputs: Inputs, cotangents: Inputs) -> Errors:
    """Bounds of dx, dweight, dbias, dstate."""
    dy = exact(cotangents["y"])
    names = ("x", "weight", "bias", "state")
    arguments = [*(inputs[name] for name in names), bounds.positions_of(inputs, inputs["state"])]
    return dict(zip(names, _conv1d(arguments, dy, cotangents["state"], bounds.convolution(inputs)), strict=True))


def recurrent_middle(inputs: Inputs, cotangents: Inputs) -> Errors:
    """Bounds of every gradient of the convolution and the recurrence after it."""
    convolved, gated = bounds.recurrent_middle(inputs)
    gradients = _rg_lru(gated, inputs, cotangents)
    dz = gradients.pop("x").stored(dtype_name(inputs["x"].dtype))
    given = [inputs[name] for name in ("x", "conv_weight", "conv_bias", "conv_state")]
    arguments = [*given, bounds.positions_of(inputs, bounds.carried_state(inputs))]
    errors = {name: gradient.error for name, gradient in gradients.items()}
    names = ("x", "conv_weight", "conv_bias", "conv_state")
    return errors | dict(zip(names, _conv1d(arguments, dz, cotangents["conv_state"], convolved), strict=True))


def _reverse(terms: Scanned, dy: Array, dh: Array) -> tuple[Approx, Approx]:
    """g_t = dy_t + a_{t+1} g_{t+1} and dh0 = a_0 g_0, with the bound of a scan run backwards."""
    rows, time, width = terms.a.value.shape
    if not time:
        return exact(np.zeros((rows, 0, width))), exact(dh)
    one, go = exact(np.ones((rows, 1, width))), np.zeros((rows, 1), bool)
    after = Approx(*(np.concatenate(p, axis=1) for p in _pairs(terms.a[:, 1:], one)))
    cut = np.concatenate([terms.reset[:, 1:], go], axis=1)[:, ::-1]
    entering = exact(np.where(terms.pad[..., None], 0.0, dy.astype(np.float64)))
    g, _ = scan(flip(after), flip(entering), exact(dh), cut)
    g = flip(g)
    return g, where_zero(terms.reset[:, 0, None], _rounded(terms.a)[:, 0] * g[:, 0])


def _pairs(left: Approx, right: Approx) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    return (left.value, right.value), (left.error, right.error)


def _rounded(a: Approx) -> Approx:
    """The decay with its own rounding, which a scan's bound counts by itself."""
    exponent = -np.log(np.where(a.value > 0, a.value, 1.0))
    return Approx(a.value, a.error + U * (2.0 + exponent) * a.value)


def _gated(terms: Gated, inputs: Inputs, cotangents: Inputs) -> dict[str, Approx]:
    scanned = terms.scanned
    reset, gone = scanned.reset[..., None], (scanned.reset | scanned.pad)[..., None]
    g, dh0 = _reverse(scanned, cotangents["y"], cotangents["h"])
    entering = where_zero(scanned.pad[..., None], select(reset, g, terms.multiplier * g))
    dx = entering * terms.input_gate
    dgate_x = dx * terms.x * one_minus(terms.input_gate)
    previous = scanned.previous.stored(dtype_name(inputs["x"].dtype))
    carried = terms.log_a * (_rounded(scanned.a) * previous)
    through_multiplier = (terms.input_gate * terms.x) * decay_over_multiplier(terms.log_a)
    q = where_zero(gone, g * (carried + through_multiplier))
    slope = _quotient(sigmoid(exact(inputs["recurrent_param"])), terms.softplus)
    dparam = slope * q.total((0, 1))
    dgate_a = q * one_minus(terms.recurrent_gate)
    return {"x": dx, "gate_x": dgate_x, "gate_a": dgate_a, "recurrent_param": dparam, "h0": dh0}


def _rg_lru(terms: Gated, inputs: Inputs, cotangents: Inputs) -> dict[str, Approx]:
    dtype = dtype_name(inputs["x"].dtype)
    gradients = _gated(terms, inputs, cotangents)
    dx = gradients["x"].stored(dtype)
    for name, gate in (("input_gate", gradients.pop("gate_x")), ("recurrent_gate", gradients.pop("gate_a"))):
        weight = inputs[name + "_weight"]
        shape = (*terms.x.value.shape[:2], *weight.shape[:2])
        dgate, x = gate.stored(dtype).reshape(*shape), terms.x.reshape(*shape)
        gradients[name + "_weight"] = einsum("bthk,bthj->hkj", x, dgate, terms=shape[0] * shape[1])
        gradients[name + "_bias"] = dgate.total((0, 1))
        through = einsum("bthj,hkj->bthk", dgate, exact(weight), terms=weight.shape[2])
        dx = (dx + through.reshape(*terms.x.value.shape).stored(dtype)).stored(dtype)
    return {**gradients, "x": dx}


def _conv1d(arguments: list[Array], dy: Approx, dstate: Array, terms: Convolved) -> tuple[Array, ...]:
    """The gradient is linear in dy and in each of x and weight: run on sizes, it bounds its own rounding."""
    x, weight, bias, state, positions = arguments
    sizes = [None if a is None else np.abs(a.astype(np.float64)) for a in (x, weight, bias, state)]
    known: tuple[Any, Any, Any, Any] = (sizes[0], sizes[1], sizes[2], sizes[3])
    magnitude = conv1d_vjp(*known, positions, np.abs(dy.value), np.abs(dstate.astype(np.float64)))
    carried = conv1d_vjp(*known, positions, dy.error, np.zeros(dstate.shape))
    tokens, width = x.shape[0] * x.shape[1], weight.shape[-1]
    count = (width + 1, tokens, tokens, width + 1)
    sums = zip(carried, magnitude, count, strict=True)
    return tuple(np.zeros(0) if e is None else e + (n + 1) * U * (s + e) for e, s, n in sums)


def _quotient(left: Approx, right: Approx) -> Approx:
    value = left.value / np.maximum(right.value, np.finfo(np.float64).tiny)
    low = np.maximum(right.value - right.error, np.finfo(np.float64).tiny)
    return Approx(value, (left.error + value * right.error) / low + U * np.abs(value))
