"""Attention of blocks of queries to just the keys that they can see: never all queries against all keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from griffin_core_keras.tf.arrays import wide_dtype
from griffin_core_keras.tf.attention import band, looped
from griffin_core_keras.tf.attention.band import attend, attend_gradients, visible
from griffin_core_keras.tf.gradients import own_gradient
from griffin_core_keras.tf.products import full_float32

UNROLLED = 16
"""Blocks that are written out, each with exactly its keys; more are one loop over blocks of equal size."""

Three = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def banded_attention(
    q: tf.Tensor,
    keys: tf.Tensor,
    values: tf.Tensor,
    query_document: tf.Tensor,
    key_document: tf.Tensor,
    window: int | None,
) -> tf.Tensor:
    """softmax(q k^T / sqrt(e)) v over keys of the same document, not after the query, the last ``window`` of them.

    Args:
        q: [b t n e] rotated.
        keys, values: [b s+t e]: s earlier ones, then those of the queries.
        query_document, key_document: int32 [b t] and [b s+t]; equal numbers see each other.

    Returns:
        [b t n e] in q's dtype. A query that sees nothing gets the mean of the values, which means nothing. The
        backward pass keeps the arguments alone.
    """
    full_float32()
    time, total, wide = q.shape[1], keys.shape[1], wide_dtype(q)
    known = time is not None and total is not None and time <= UNROLLED * band.BLOCK
    documents = (query_document, key_document)

    @own_gradient
    def attention(q: tf.Tensor, keys: tf.Tensor, values: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Three]]:
        given = (q, keys, values)

        def pull(dy: tf.Tensor) -> Three:
            opened = [tf.cast(x, wide) for x in (*given, dy)]
            run = _unrolled_gradients if known else looped.gradients
            dq, dkeys, dvalues = run(*opened, *documents, window)
            return tf.cast(dq, q.dtype), tf.cast(dkeys, keys.dtype), tf.cast(dvalues, values.dtype)

        run = _unrolled if known else looped.forward
        return tf.cast(run(*(tf.cast(x, wide) for x in given), *documents, window), q.dtype), pull

    found: tf.Tensor = attention(q, keys, values)
    return found


class _Block(NamedTuple):
    """Queries start..stop, which see keys low..high of some number; query ``start`` stands at key low + past."""

    start: int
    stop: int
    low: int
    high: int
    past: int


def _blocks(time: int, total: int, window: int | None) -> list[_Block]:
    past, found = total - time, []
    for start in range(0, time, band.BLOCK):
        stop = min(start + band.BLOCK, time)
        low = 0 if window is None else max(0, past + start - window + 1)
        found.append(_Block(start, stop, low, past + stop, past + start - low))
    return found


def _unrolled(
    q: tf.Tensor,
    keys: tf.Tensor,
    values: tf.Tensor,
    query_document: tf.Tensor,
    key_document: tf.Tensor,
    window: int | None,
) -> tf.Tensor:
    found = []
    for start, stop, low, high, past in _blocks(q.shape[1], keys.shape[1], window):
        seen = visible(query_document[:, start:stop], key_document[:, low:high], past, window)
        found.append(attend(q[:, start:stop], keys[:, low:high], values[:, low:high], seen))
    return tf.concat(found, axis=1) if found else tf.zeros_like(q)


def _unrolled_gradients(
    q: tf.Tensor,
    keys: tf.Tensor,
    values: tf.Tensor,
    dy: tf.Tensor,
    query_document: tf.Tensor,
    key_document: tf.Tensor,
    window: int | None,
) -> Three:
    total, found = keys.shape[1], []
    dkeys, dvalues = tf.zeros_like(keys), tf.zeros_like(values)
    for start, stop, low, high, past in _blocks(q.shape[1], total, window):
        seen = visible(query_document[:, start:stop], key_document[:, low:high], past, window)
        part = (q[:, start:stop], keys[:, low:high], values[:, low:high], seen, dy[:, start:stop])
        dq, *back = attend_gradients(*part)
        found.append(dq)
        room = ((0, 0), (low, total - high), (0, 0))
        dkeys, dvalues = dkeys + tf.pad(back[0], room), dvalues + tf.pad(back[1], room)
    return tf.concat(found, axis=1) if found else tf.zeros_like(q), dkeys, dvalues
