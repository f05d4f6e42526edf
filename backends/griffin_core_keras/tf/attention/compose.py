"""local_attention as users call it."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from griffin_core.checks import PAD
from griffin_core_keras.tf.arrays import is_concrete, sizes
from griffin_core_keras.tf.attention.banded import banded_attention
from griffin_core_keras.tf.attention.ring import check_room, ends, held_after, recall, store
from griffin_core_keras.tf.attention.rotation import rotate
from griffin_core_keras.tf.shapes import check_shape


def local_attention(
    q: tf.Tensor,
    k: tf.Tensor,
    v: tf.Tensor,
    positions: tf.Tensor | None = None,
    cache: Mapping[str, tf.Tensor] | None = None,
    window: int | None = None,
) -> tuple[tf.Tensor, dict[str, tf.Tensor] | None]:
    """Multi-query attention over the last ``window`` tokens of the query's document, itself included.

    Args:
        q: [b t n e] before rotation.
        k, v: [b t e] before rotation.
        positions: int32 [b t]: 0 starts a document, -1 is padding at the end of a row (output 0). None
            continues at the cache's position, or starts a document without one.
        cache: "k", "v" [b s e] and "position" int32 [b], or None.
        window: keys that a query sees; None is all of its document.

    Returns:
        (y, cache): [b t n e] in q's dtype, and the cache after the last token, or None.

    Raises:
        InputError: shapes do not fit, or the cache is shorter than the window or than a document that is
            attended globally.
    """
    q, k, v = (tf.convert_to_tensor(x) for x in (q, k, v))
    for name, value in (("k", k), ("v", v)):
        check_shape("local_attention", name, value, (q.shape[0], q.shape[1], q.shape[3]))
    if positions is not None:
        positions = tf.cast(positions, tf.int32)
    batch, time = sizes(q)[:2]
    if cache is not None:
        cache = {name: tf.convert_to_tensor(x) for name, x in cache.items()}
        known = isinstance(time, int) and is_concrete(cache["position"], positions)
        after = held_after(positions, cache["position"], time) if known else None
        check_room(cache["k"].shape[1], window, after)
    if positions is None:
        begin = tf.zeros((batch,), tf.int32) if cache is None else cache["position"]
        positions = begin[:, None] + tf.range(time)
    pad = positions == PAD
    # 0 at padding: a weight of 0 does not keep NaN away
    q, k, v = (tf.where(_beside(pad, x), tf.zeros((), x.dtype), x) for x in (q, k, v))
    q, k = rotate(q, positions), rotate(k, positions)
    document = tf.cumsum(tf.cast(positions == 0, tf.int32), axis=1)
    if cache is None:
        y, new = banded_attention(q, k, v, document, document, window), None
    else:
        y, new = _with_cache(q, k, v, positions, document, cache, window)
    return tf.where(_beside(pad, y), tf.zeros((), y.dtype), y), new


def _with_cache(
    q: tf.Tensor,
    k: tf.Tensor,
    v: tf.Tensor,
    positions: tf.Tensor,
    document: tf.Tensor,
    cache: Mapping[str, tf.Tensor],
    window: int | None,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    before = cache["position"]
    real, after = ends(positions, before)
    size = sizes(cache["k"])[1]
    held = tf.range(size) >= size - before[:, None]  # [b s], oldest first
    keys, values = (
        tf.concat([tf.cast(recall(cache[name], before), x.dtype), x], axis=1) for name, x in (("k", k), ("v", v))
    )
    y = banded_attention(q, keys, values, document, tf.concat([tf.where(held, 0, -1), document], 1), window)
    new = {name: store(cache[name], x, real, after) for name, x in (("k", k), ("v", v))}
    return y, {**new, "position": after}


def _beside(pad: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """pad [b t] with axes of length 1, to select in x [b t ...]."""
    return tf.reshape(pad, (*sizes(pad), *[1] * (len(x.shape) - 2)))
