"""``conv1d`` as w shifted products."""

from __future__ import annotations

import tensorflow as tf

from griffin_core.checks import PAD
from griffin_core_keras.tf.arrays import sizes, wide_dtype


def conv1d(
    x: tf.Tensor,
    weight: tf.Tensor,
    bias: tf.Tensor,
    state: tf.Tensor | None = None,
    positions: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """y_t = bias + sum_j weight[j] x_{t-(w-1)+j} over the tokens of t's own document, summed in float32.

    A token at position p of its document has p tokens before it there, so tap distance k is seen where p >= k, or
    where no document has started in this call yet: then the state is seen.

    Args:
        x: [b t d].
        weight: [d 1 w].
        bias: [d].
        state: [b w-1 d] or None.
        positions: int32 [b t], right-padded, or None.

    Returns:
        (y [b t d], state [b w-1 d]) in x's dtype.
    """
    (batch, time, width), taps, wide = sizes(x), weight.shape[-1], wide_dtype(x)
    before = tf.zeros((batch, taps - 1, width), x.dtype) if state is None else tf.cast(state, x.dtype)
    # Wide once for all: the gradients that a token gets, by its taps and by the state, are then summed in float32.
    line = tf.cast(tf.concat([before, x], axis=1), wide)
    factors, none = tf.cast(weight[:, 0], wide), tf.zeros((), wide)
    total = tf.cast(bias, wide)
    going_on = None if positions is None else (positions != PAD) & (tf.cumsum(_starts(positions), axis=1) == 0)
    for back in range(taps):
        start = taps - 1 - back
        seen = line[:, start : start + time]
        if positions is not None:  # padding has -1 and sees nothing
            seen = tf.where(((positions >= back) | going_on)[..., None], seen, none)
        total = total + factors[:, start] * seen
    if positions is None:
        return tf.cast(total, x.dtype), tf.cast(line[:, time:], x.dtype)
    total = tf.where((positions == PAD)[..., None], none, total)
    return tf.cast(total, x.dtype), tf.cast(_last(line, positions, taps), x.dtype)


def _last(line: tf.Tensor, positions: tf.Tensor, taps: int) -> tf.Tensor:
    """The last w-1 inputs of each row's last document, oldest first; zeros before its start."""
    real = tf.cast(positions != PAD, tf.int32)
    count = tf.reduce_sum(real, axis=1, keepdims=True)  # [b 1]
    slots = tf.range(taps - 1)
    tail = tf.gather(line, count + slots, axis=1, batch_dims=1)
    is_last = tf.range(sizes(positions)[1]) == count - 1
    final = tf.reduce_sum(tf.where(is_last, positions, 0), axis=1, keepdims=True)
    unbroken = tf.reduce_sum(_starts(positions), axis=1, keepdims=True) == 0
    inside = (taps - 2 - slots <= final) | unbroken
    return tf.where(inside[..., None], tail, tf.zeros((), line.dtype))


def _starts(positions: tf.Tensor) -> tf.Tensor:
    return tf.cast(positions == 0, tf.int32)
