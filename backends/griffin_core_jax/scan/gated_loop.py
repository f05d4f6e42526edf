"""``gated_scan`` around the loop of ``linear_scan``: everything elementwise is done for all rows at once."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from griffin_core_jax.scan import gates, loop


def gated_scan(
    x: Array,
    gate_x: Array,
    gate_a: Array,
    recurrent_param: Array,
    h0: Array | None = None,
    positions: Array | None = None,
) -> tuple[Array, Array]:
    """(y [b t d] in x's dtype, h [b d]); see the operation ``gated_scan``."""
    y, h, pad = _states(x, gate_x, gate_a, recurrent_param, h0, positions)
    y = y if pad is None else jnp.where(pad[..., None], 0.0, y)
    return y.astype(x.dtype), h


def gated_scan_vjp(
    x: Array,
    gate_x: Array,
    gate_a: Array,
    recurrent_param: Array,
    h0: Array | None,
    positions: Array | None,
    y: Array,
    h: Array,
    dy: Array,
    dh: Array | None,
) -> tuple[Array | None, ...]:
    """Gradients of every floating input in its dtype; gates are computed again, the multiplier's slope is exact."""
    wide = loop.wide_dtype(x)
    found = gates.terms(x, gate_x, gate_a, recurrent_param)
    reset, pad = marks = gates.find_marks(positions, *x.shape[:2], h0 is None)
    states = y if y.dtype == wide else _states(x, gate_x, gate_a, recurrent_param, h0, positions)[0]
    dy = dy if pad is None else jnp.where(pad[..., None], 0.0, dy)
    g, dh0 = loop.reverse_scan(gates.scan_terms(x, found, marks)[1], reset, dy, dh, wide)
    gated = found.input_gate * x.astype(wide)
    scaled = g * (found.multiplier if reset is None else jnp.where(reset[..., None], 1.0, found.multiplier))
    q = g * gates.decay_factor(found.log_a, loop.previous(states, h0), gated)
    dx = scaled * found.input_gate
    closed = 1.0 - found.input_gate
    dgate_x = scaled * gated * closed
    skip = _either(reset, pad)
    q = q if skip is None else jnp.where(skip[..., None], 0.0, q)
    if pad is not None:
        dx, dgate_x = (jnp.where(pad[..., None], 0.0, value) for value in (dx, dgate_x))
    dparam = gates.softplus_slope(recurrent_param.astype(wide)) * q.sum(axis=(0, 1))
    dgate_a = q * (1.0 - found.recurrent_gate)
    pairs = ((dx, x), (dgate_x, gate_x), (dgate_a, gate_a), (dparam, recurrent_param))
    return *(d.astype(v.dtype) for d, v in pairs), None if h0 is None else dh0.astype(h0.dtype), None


def _states(
    x: Array, gate_x: Array, gate_a: Array, recurrent_param: Array, h0: Array | None, positions: Array | None
) -> tuple[Array, Array, Array | None]:
    """(states in the wide dtype [b t d], the last, padding)."""
    marks = gates.find_marks(positions, *x.shape[:2], h0 is None)
    u, log_a = gates.scan_terms(x, gates.terms(x, gate_x, gate_a, recurrent_param), marks)
    y, h = loop.linear_scan(u, log_a, h0, marks.reset)
    return y, h, marks.pad


def _either(first: Array | None, second: Array | None) -> Array | None:
    if first is None or second is None:
        return second if first is None else first
    return first | second
