"""Queries against the keys that some of them see, and the gradient of that."""

from __future__ import annotations

import tensorflow as tf

from griffin_core_keras.tf.arrays import Size, sizes

BLOCK = 256
"""Queries of one block."""
_OUT = -1e30
"""Score of a key that is not seen; its weight is exactly 0."""


def visible(query_document: tf.Tensor, key_document: tf.Tensor, past: Size, window: Size | None) -> tf.Tensor:
    """bool [b q k]: keys of the query's document, not after it, the last ``window`` of them.

    Args:
        query_document, key_document: int32 [b q] and [b k].
        past: query i stands at key ``past + i``.
    """
    query = past + tf.range(sizes(query_document)[1])[:, None]
    key = tf.range(sizes(key_document)[1])
    band = key <= query if window is None else (key <= query) & (key > query - window)
    return band & (query_document[..., None] == key_document[:, None])


def attend(q: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    """softmax(q k^T / sqrt(e)) v: [b q n e] of q [b q n e], keys and values [b k e], seen bool [b q k].

    A query that sees nothing gets the mean of the values, which means nothing.
    """
    return tf.reshape(tf.matmul(_weights(q, keys, seen), values), sizes(q))


def attend_gradients(
    q: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, seen: tf.Tensor, dy: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradients of q, keys and values for dy [b q n e]; the weights are computed again."""
    weights, dy, scale = _weights(q, keys, seen), _rows(dy), q.shape[-1] ** -0.5
    dweights = tf.matmul(dy, values, transpose_b=True)
    dscores = weights * (dweights - tf.reduce_sum(weights * dweights, axis=-1, keepdims=True)) * scale
    dq = tf.reshape(tf.matmul(dscores, keys), sizes(q))
    return dq, tf.matmul(dscores, _rows(q), transpose_a=True), tf.matmul(weights, dy, transpose_a=True)


def _rows(q: tf.Tensor) -> tf.Tensor:
    """[b q*n e]: heads folded into rows, since all share one key head."""
    batch, count, heads, size = sizes(q)
    return tf.reshape(q, (batch, count * heads, size))


def _weights(q: tf.Tensor, keys: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    """[b q*n k], every row's sum is 1."""
    (batch, count, heads, size), keys_count = sizes(q), sizes(keys)[1]
    scores = tf.matmul(_rows(q), keys, transpose_b=True) * (size**-0.5)
    scores = tf.reshape(scores, (batch, count, heads, keys_count))
    scores = tf.where(seen[:, :, None], scores, tf.constant(_OUT, scores.dtype))
    return tf.reshape(tf.nn.softmax(scores), (batch, count * heads, keys_count))
