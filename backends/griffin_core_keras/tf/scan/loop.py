"""``linear_scan`` as one loop over time, and the mirrored loop for its gradient.

A parallel form passes over all of the data for each doubling of the distance; here a row of [b d] passes through
exp, multiply and add while it stands in the cache. XLA makes one fused step of it.
"""

from __future__ import annotations

import tensorflow as tf

from griffin_core_keras.tf.arrays import sizes, wide_dtype
from griffin_core_keras.tf.loops import collect
from griffin_core_keras.tf.tracing import in_graph


def linear_scan(
    x: tf.Tensor, log_a: tf.Tensor, h0: tf.Tensor | None = None, reset: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """h_t = exp(log_a_t) h_{t-1} + x_t, h_t = x_t at a reset, in float32 (float64 for float64).

    Args:
        x, log_a: [b t d].
        h0: [b d] or None.
        reset: bool [b t] or None.

    Returns:
        (y, h): [b t d] in x's dtype, and the last state [b d].
    """
    first = first_state(x, h0)
    if x.shape[1] == 0:
        return x, first
    found: tuple[tf.Tensor, tf.Tensor] = _forward(x, log_a, first, reset)
    return found


def linear_scan_vjp(
    x: tf.Tensor,
    log_a: tf.Tensor,
    h0: tf.Tensor | None,
    reset: tf.Tensor | None,
    y: tf.Tensor,
    h: tf.Tensor,
    dy: tf.Tensor,
    dh: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None, None]:
    """Gradients of x, log_a and h0, in their dtypes; states that ``y`` has rounded are computed again."""
    wide = wide_dtype(x)
    states = y if y.dtype == wide else linear_scan(tf.cast(x, wide), log_a, h0, reset)[0]
    g, dh0 = reverse_scan(log_a, reset, dy, dh)
    a = tf.exp(tf.cast(log_a, wide))
    cut = a == 0.0 if reset is None else (a == 0.0) | reset[..., None]
    dlog_a = tf.where(cut, tf.zeros_like(a), g * a * previous(states, h0))
    return tf.cast(g, x.dtype), tf.cast(dlog_a, log_a.dtype), None if h0 is None else tf.cast(dh0, h0.dtype), None


def reverse_scan(
    log_a: tf.Tensor, reset: tf.Tensor | None, dy: tf.Tensor, dh: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """(g [b t d], dh0 [b d]) with g_t = dy_t + a_{t+1} g_{t+1}, nothing crossing a reset; in dh's dtype."""
    if dy.shape[1] == 0:
        return tf.cast(dy, dh.dtype), dh
    found: tuple[tf.Tensor, tf.Tensor] = _backward(log_a, reset, dy, dh)
    return found


def first_state(x: tf.Tensor, h0: tf.Tensor | None) -> tf.Tensor:
    """The state before the first token, [b d] in the dtype of the recurrence."""
    batch, _, width = sizes(x)
    return tf.zeros((batch, width), wide_dtype(x)) if h0 is None else tf.cast(h0, wide_dtype(x))


def previous(states: tf.Tensor, h0: tf.Tensor | None) -> tf.Tensor:
    """h_{t-1} [b t d]."""
    first = tf.zeros_like(states[:, :1]) if h0 is None else tf.cast(h0, states.dtype)[:, None][:, : sizes(states)[1]]
    return tf.concat([first, states[:, :-1]], axis=1)


def batch_first(rows: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    """rows [t b d] as [b t d], of which ``shape`` is known."""
    found = tf.transpose(rows, (1, 0, 2))
    found.set_shape(shape)
    return found


@in_graph
def _forward(x: tf.Tensor, log_a: tf.Tensor, first: tf.Tensor, reset: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    wide = first.dtype

    def step(t: tf.Tensor, h: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        kept = tf.exp(tf.cast(log_a[:, t], wide)) * h
        kept = kept if reset is None else tf.where(reset[:, t, None], tf.zeros_like(kept), kept)
        h = kept + tf.cast(x[:, t], wide)
        return h, [tf.cast(h, x.dtype)]

    h, (y,) = collect(sizes(x)[1], step, first, [tf.zeros_like(first, x.dtype)])
    return batch_first(y, x.shape), h


@in_graph
def _backward(log_a: tf.Tensor, reset: tf.Tensor | None, dy: tf.Tensor, dh: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    wide = dh.dtype

    def step(t: tf.Tensor, after: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        here = tf.cast(dy[:, t], wide) + after
        before = tf.exp(tf.cast(log_a[:, t], wide)) * here
        before = before if reset is None else tf.where(reset[:, t, None], tf.zeros_like(before), before)
        return before, [here]

    dh0, (g,) = collect(sizes(dy)[1], step, dh, [tf.zeros_like(dh)], reverse=True)
    return batch_first(g, dy.shape), dh0
