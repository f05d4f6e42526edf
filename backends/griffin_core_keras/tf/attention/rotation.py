"""Rotary positions from two tables, exact at long positions (``griffin_core.rotary``)."""

from __future__ import annotations

import tensorflow as tf

from griffin_core.rotary import RADIX, rotary_tables
from griffin_core_keras.tf.arrays import sizes, wide_dtype


def rotate(x: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """The first half of each head rotated, in split-half pairs (i, i + e/4).

    Args:
        x: [b t e] or [b t n e].
        positions: int32 [b t] within each token's document; those of padding do not matter.

    Returns:
        The shape and dtype of x.
    """
    if x.shape[1] == 0:  # TensorFlow's graph optimiser divides by the size of the gradient's sum
        return x
    quarter, wide = x.shape[-1] // 4, wide_dtype(x)
    form = (*sizes(positions), *(1,) * (len(x.shape) - 3), quarter)
    cos, sin = (tf.cast(tf.reshape(part, form), wide) for part in angles(positions, x.shape[-1]))
    first, second = (tf.cast(x[..., start : start + quarter], wide) for start in (0, quarter))
    turned = (first * cos - second * sin, second * cos + first * sin)
    return tf.concat([*(tf.cast(part, x.dtype) for part in turned), x[..., 2 * quarter :]], axis=-1)


def angles(positions: tf.Tensor, head_dim: int) -> tuple[tf.Tensor, tf.Tensor]:
    """(cos, sin) float32 [b t e/4] of each position's angles, as the sum of a coarse and a fine angle."""
    coarse, fine = (tf.constant(table) for table in rotary_tables(head_dim))
    at = tf.maximum(positions, 0)
    far, near = tf.gather(coarse, at // RADIX), tf.gather(fine, at % RADIX)  # [b t 2 e/4]
    cos = far[..., 0, :] * near[..., 0, :] - far[..., 1, :] * near[..., 1, :]
    sin = far[..., 1, :] * near[..., 0, :] + far[..., 0, :] * near[..., 1, :]
    return cos, sin
