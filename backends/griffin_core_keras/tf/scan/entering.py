"""What ``linear_scan`` is given by ``gated_scan``, with a gradient that stays finite as a approaches 1.

TensorFlow's own gradient of sqrt(1 - a^2) is infinite at a = 1; multiplied with the zero it meets there it would be
NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from griffin_core_keras.tf.gradients import own_gradient
from griffin_core_keras.tf.scan import gates
from griffin_core_keras.tf.scan.gates import Marks


def scan_input(
    x: tf.Tensor, gate_x: tf.Tensor, gate_a: tf.Tensor, recurrent_param: tf.Tensor, marks: Marks
) -> tuple[tf.Tensor, tf.Tensor]:
    """(u, log_a) [b t d] in float32: (gated x, -inf) at a reset, (0, 0) at padding."""

    @own_gradient
    def enter(*given: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable[..., tuple[tf.Tensor, ...]]]:
        def pull(du: tf.Tensor, dlog_a: tf.Tensor) -> tuple[tf.Tensor, ...]:
            found = _gradients(given, marks, du, dlog_a)
            return tuple(tf.cast(d, v.dtype) for d, v in zip(found, given, strict=True))

        return gates.scan_terms(given[0], gates.terms(*given), marks), pull

    found: tuple[tf.Tensor, tf.Tensor] = enter(x, gate_x, gate_a, recurrent_param)
    return found


def _gradients(given: tuple[tf.Tensor, ...], marks: Marks, du: tf.Tensor, dlog_a: tf.Tensor) -> tuple[tf.Tensor, ...]:
    x, _, _, recurrent_param = given
    found = gates.terms(*given)
    wide, a = found.log_a.dtype, tf.exp(found.log_a)
    gated = found.input_gate * tf.cast(x, wide)
    scaled = du * gates.chosen(marks.reset, tf.ones((), wide), found.multiplier)
    through = found.log_a * dlog_a - du * gated * a * a * gates.multiplier_slope(found.log_a)
    q = gates.cleared(marks.reset, tf.where(a == 0.0, tf.zeros_like(a), through))
    q = gates.cleared(marks.pad, q)  # what stands at padding may be NaN
    dgate_x = gates.cleared(marks.pad, scaled * gated * (1.0 - found.input_gate))
    dgate_a = gates.cleared(marks.pad, q * (1.0 - found.recurrent_gate))
    dparam = gates.softplus_slope(tf.cast(recurrent_param, wide)) * tf.reduce_sum(q, axis=(0, 1))
    return gates.cleared(marks.pad, scaled * found.input_gate), dgate_x, dgate_a, dparam
