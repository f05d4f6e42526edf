"""What enters the recurrence: gates, decay and multiplier (Griffin, section 2.4), and their exact gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from griffin_core.checks import PAD
from griffin_core.config import RG_LRU_C
from griffin_core_keras.tf.arrays import sizes, wide_dtype
from griffin_core_keras.tf.products import block_diagonal


class Marks(NamedTuple):
    """Where documents start and where padding stands, bool [b t]; None where there can be none."""

    reset: tf.Tensor | None
    pad: tf.Tensor | None


class Terms(NamedTuple):
    """Everything elementwise about one call of ``gated_scan``, float32 [b t d]; no marks are applied."""

    input_gate: tf.Tensor
    recurrent_gate: tf.Tensor
    log_a: tf.Tensor
    multiplier: tf.Tensor


def find_marks(positions: tf.Tensor | None, x: tf.Tensor, fresh: bool) -> Marks:
    """The marks of positions int [b t] beside x [b t d]; without them token 0 starts a document when ``fresh``."""
    if positions is not None:
        return Marks(positions == 0, positions == PAD)
    if not fresh:
        return Marks(None, None)
    batch, time, _ = sizes(x)
    return Marks(tf.broadcast_to(tf.range(time) == 0, (batch, time)), None)


def terms(x: tf.Tensor, gate_x: tf.Tensor, gate_a: tf.Tensor, recurrent_param: tf.Tensor) -> Terms:
    """Gates, log a = -8 softplus(p) r and sqrt(1 - a^2), without cancellation as a approaches 1."""
    wide = wide_dtype(x)
    recurrent_gate = tf.sigmoid(tf.cast(gate_a, wide))
    log_a = -RG_LRU_C * tf.nn.softplus(tf.cast(recurrent_param, wide)) * recurrent_gate
    return Terms(tf.sigmoid(tf.cast(gate_x, wide)), recurrent_gate, log_a, tf.sqrt(-tf.math.expm1(2.0 * log_a)))


def scan_terms(x: tf.Tensor, found: Terms, marks: Marks) -> tuple[tf.Tensor, tf.Tensor]:
    """(u, log_a) for ``linear_scan``: (gated x, -inf) at a reset, (0, 0) at padding."""
    gated = found.input_gate * tf.cast(x, found.log_a.dtype)
    u, log_a = chosen(marks.reset, gated, found.multiplier * gated), found.log_a
    log_a = chosen(marks.reset, tf.constant(-float("inf"), log_a.dtype), log_a)
    return cleared(marks.pad, u), cleared(marks.pad, log_a)


def chosen(mark: tf.Tensor | None, at_mark: tf.Tensor, elsewhere: tf.Tensor) -> tf.Tensor:
    """``at_mark`` where mark [b t] is set, by selection; ``elsewhere`` [b t d] where it is not, or is None."""
    return elsewhere if mark is None else tf.where(mark[..., None], at_mark, elsewhere)


def cleared(mark: tf.Tensor | None, x: tf.Tensor) -> tf.Tensor:
    """x [b t d] with 0 where mark [b t] is set, whatever stands there."""
    return chosen(mark, tf.zeros((), x.dtype), x)


def multiplier_slope(log_a: tf.Tensor) -> tf.Tensor:
    """L / sqrt(1 - a^2), which tends to -sqrt(|L| / 2) as a approaches 1."""
    # |L| / m^2; the denominator is replaced where it is 0, so that nothing is divided by it
    one, none = tf.ones((), log_a.dtype), log_a == 0.0
    ratio = tf.where(none, 0.5 * one, log_a / tf.where(none, -one, tf.math.expm1(2.0 * log_a)))
    return -tf.sqrt(-log_a) * tf.sqrt(ratio)


def decay_factor(log_a: tf.Tensor, previous: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """L a h_{t-1} - u a^2 L / m: the gradient's factor of everything about the decay, finite everywhere."""
    a = tf.exp(log_a)
    return tf.where(a == 0.0, tf.zeros_like(a), log_a * a * previous - u * a * a * multiplier_slope(log_a))


def softplus_slope(param: tf.Tensor) -> tf.Tensor:
    """sigmoid(p) / softplus(p), which tends to 1 as p falls."""
    value, one = tf.nn.softplus(param), tf.ones((), param.dtype)
    return tf.where(value == 0.0, one, tf.sigmoid(param) / tf.where(value == 0.0, one, value))


def block_gates(x: tf.Tensor, params: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Pre-activations of the input and the recurrence gate [b t d], in x's dtype: each block times its matrix."""
    return _pre_activation(x, params, "input_gate"), _pre_activation(x, params, "recurrent_gate")


def _pre_activation(x: tf.Tensor, params: Mapping[str, tf.Tensor], gate: str) -> tf.Tensor:
    product, bias = block_diagonal(x, params[f"{gate}_weight"]), params[f"{gate}_bias"]
    return tf.cast(product + tf.reshape(tf.cast(bias, product.dtype), (-1,)), x.dtype)
