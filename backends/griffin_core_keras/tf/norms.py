"""RMSNorm."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from griffin_core.config import NORM_EPS
from griffin_core_keras.tf.arrays import wide_dtype
from griffin_core_keras.tf.gradients import own_gradient


def rms_norm(x: tf.Tensor, scale: tf.Tensor, eps: float = NORM_EPS) -> tf.Tensor:
    """x / sqrt(mean(x^2) + eps) * (1 + scale) over the last axis, in float32.

    Args:
        x: [b t m].
        scale: [m].

    Returns:
        [b t m] in x's dtype. The backward pass keeps x alone.
    """
    wide = wide_dtype(x)

    def parts(x: tf.Tensor, scale: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(x over its root mean square, one over that, 1 + scale)."""
        values = tf.cast(x, wide)
        factor = 1.0 / tf.sqrt(tf.reduce_mean(values * values, axis=-1, keepdims=True) + eps)
        return values * factor, factor, 1.0 + tf.cast(scale, wide)

    @own_gradient
    def norm(x: tf.Tensor, scale: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, tf.Tensor]]]:
        def pull(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            unit, factor, gain = parts(x, scale)
            dy = tf.cast(dy, wide)
            inner = dy * gain
            along = tf.reduce_mean(inner * unit, axis=-1, keepdims=True)
            dscale = tf.reduce_sum(tf.reshape(dy * unit, (-1, tf.shape(scale)[0])), axis=0)
            return tf.cast((inner - unit * along) * factor, x.dtype), tf.cast(dscale, scale.dtype)

        unit, _, gain = parts(x, scale)
        return tf.cast(unit * gain, x.dtype), pull

    normed: tf.Tensor = norm(tf.convert_to_tensor(x), tf.convert_to_tensor(scale))
    return normed
