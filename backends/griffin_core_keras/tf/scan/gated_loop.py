"""``gated_scan`` around the loop of ``linear_scan``: everything elementwise is done for all rows at once."""

from __future__ import annotations

import tensorflow as tf

from griffin_core_keras.tf.arrays import wide_dtype
from griffin_core_keras.tf.scan import gates, loop


def gated_scan(
    x: tf.Tensor,
    gate_x: tf.Tensor,
    gate_a: tf.Tensor,
    recurrent_param: tf.Tensor,
    h0: tf.Tensor | None = None,
    positions: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """(y [b t d] in x's dtype, h [b d]); see the operation ``gated_scan``."""
    y, h, pad = _states(x, gate_x, gate_a, recurrent_param, h0, positions)
    return tf.cast(gates.cleared(pad, y), x.dtype), h


def gated_scan_vjp(
    x: tf.Tensor,
    gate_x: tf.Tensor,
    gate_a: tf.Tensor,
    recurrent_param: tf.Tensor,
    h0: tf.Tensor | None,
    positions: tf.Tensor | None,
    y: tf.Tensor,
    h: tf.Tensor,
    dy: tf.Tensor,
    dh: tf.Tensor,
) -> tuple[tf.Tensor | None, ...]:
    """Gradients of every floating input in its dtype; gates are computed again, the multiplier's slope is exact."""
    wide = wide_dtype(x)
    found = gates.terms(x, gate_x, gate_a, recurrent_param)
    reset, pad = marks = gates.find_marks(positions, x, h0 is None)
    states = y if y.dtype == wide else _states(x, gate_x, gate_a, recurrent_param, h0, positions)[0]
    g, dh0 = loop.reverse_scan(gates.scan_terms(x, found, marks)[1], reset, gates.cleared(pad, dy), dh)
    gated = found.input_gate * tf.cast(x, wide)
    scaled = g * gates.chosen(reset, tf.ones((), wide), found.multiplier)
    q = g * gates.decay_factor(found.log_a, loop.previous(states, h0), gated)
    q = gates.cleared(pad, gates.cleared(reset, q))
    dx = gates.cleared(pad, scaled * found.input_gate)
    dgate_x = gates.cleared(pad, scaled * gated * (1.0 - found.input_gate))
    dgate_a = gates.cleared(pad, q * (1.0 - found.recurrent_gate))
    dparam = gates.softplus_slope(tf.cast(recurrent_param, wide)) * tf.reduce_sum(q, axis=(0, 1))
    pairs = ((dx, x), (dgate_x, gate_x), (dgate_a, gate_a), (dparam, recurrent_param))
    return *(tf.cast(d, v.dtype) for d, v in pairs), None if h0 is None else tf.cast(dh0, h0.dtype), None


def _states(
    x: tf.Tensor,
    gate_x: tf.Tensor,
    gate_a: tf.Tensor,
    recurrent_param: tf.Tensor,
    h0: tf.Tensor | None,
    positions: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """(states in the wide dtype [b t d], the last, padding)."""
    marks = gates.find_marks(positions, x, h0 is None)
    u, log_a = gates.scan_terms(x, gates.terms(x, gate_x, gate_a, recurrent_param), marks)
    y, h = loop.linear_scan(u, log_a, h0, marks.reset)
    return y, h, marks.pad
