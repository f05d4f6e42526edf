"""The gate of the MLP and of the recurrent block."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from griffin_core_keras.tf.arrays import wide_dtype
from griffin_core_keras.tf.gradients import own_gradient

_ROOT = math.sqrt(2.0 / math.pi)
_CUBE = 0.044715


def gelu_product(gate: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """gelu(gate) * x with the approximation by tanh, computed in float32.

    Args:
        gate, x: of one shape.

    Returns:
        Their shape, in x's dtype. The backward pass keeps the operands alone.
    """
    wide = wide_dtype(x)

    @own_gradient
    def product(gate: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, tf.Tensor]]]:
        def pull(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            g, dy = tf.cast(gate, wide), tf.cast(dy, wide)
            bent = _bent(g)
            slope = 0.5 * (1.0 + bent) + 0.5 * g * (1.0 - bent * bent) * _ROOT * (1.0 + 3.0 * _CUBE * g * g)
            dx = dy * (0.5 * g * (1.0 + bent))
            return tf.cast(dy * tf.cast(x, wide) * slope, gate.dtype), tf.cast(dx, x.dtype)

        g = tf.cast(gate, wide)
        return tf.cast(0.5 * g * (1.0 + _bent(g)) * tf.cast(x, wide), x.dtype), pull

    found: tf.Tensor = product(tf.convert_to_tensor(gate), tf.convert_to_tensor(x))
    return found


def _bent(g: tf.Tensor) -> tf.Tensor:
    return tf.tanh(_ROOT * (g + _CUBE * g * g * g))
