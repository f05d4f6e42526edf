"""The cache of keys and values: position p of the current document stands in slot p mod s."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from griffin_core.checks import PAD
from griffin_core.errors import InputError
from griffin_core_keras.tf.arrays import sizes


def ends(positions: tf.Tensor, before: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(real, after), int32 [b]: tokens of each right-padded row, and its state's position after them."""
    real = tf.reduce_sum(tf.cast(positions != PAD, tf.int32), axis=1)
    is_last = tf.range(sizes(positions)[1]) == real[:, None] - 1
    last = tf.reduce_sum(tf.where(is_last, positions, 0), axis=1)
    return real, tf.where(real > 0, last + 1, before)


def recall(cache: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    """[b s e] in order of age, oldest first; slots that hold nothing stand first and are zero.

    Args:
        cache: [b s e].
        seen: int32 [b], tokens of the current document.
    """
    size = sizes(cache)[1]
    at = seen[:, None] - size + tf.range(size)  # positions
    found = tf.gather(cache, at % size, axis=1, batch_dims=1)
    return tf.where((at >= 0)[..., None], found, tf.zeros((), cache.dtype))


def store(cache: tf.Tensor, new: tf.Tensor, real: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
    """The cache after the tokens ``new``: each slot's newest position, zeros where the document has none.

    Args:
        cache: [b s e].
        new: [b t e], right-padded.
        real: int32 [b], how many of them are no padding.
        after: int32 [b], tokens of the current document after them.
    """
    size = sizes(cache)[1]
    if new.shape[1] is None:
        new = tf.pad(new, ((0, 0), (0, 1), (0, 0)))  # there may be no token at all, and nothing to take from none
    elif not new.shape[1]:
        return cache
    back = (after[:, None] - 1 - tf.range(size)) % size  # of each slot's token from the last one
    index = real[:, None] - 1 - back
    fresh = tf.cast(tf.gather(new, tf.maximum(index, 0), axis=1, batch_dims=1), cache.dtype)
    kept = tf.where((index >= 0)[..., None], fresh, cache)
    return tf.where((after[:, None] - 1 - back >= 0)[..., None], kept, tf.zeros((), cache.dtype))


def held_after(positions: Any, before: Any, time: int) -> Any:
    """int [b]: tokens that each row's state will hold after a call, from values on the host."""
    start = np.asarray(before)
    if positions is None:
        return start + time
    pairs = zip(np.asarray(positions), start, strict=True)
    return np.array([row[row != PAD][-1] + 1 if (row != PAD).any() else old for row, old in pairs])


def check_room(size: int | None, window: int | None, after: Any) -> None:
    """Refuse a cache that is too short.

    Args:
        size: its slots; None is not known.
        after: int [b], tokens that it will hold; None inside a traced function, where nobody knows.

    Raises:
        InputError: it is shorter than the window, or than a document that is attended globally.
    """
    if size is None:
        return
    if window is not None:
        if size < window:
            raise InputError(
                f"the cache holds {size} tokens, fewer than the window of {window}; make it at least as long"
            )
    elif after is not None and int(np.max(after, initial=0)) > size:
        row = int(np.argmax(after))
        raise InputError(
            f"row {row} would hold {int(after[row])} tokens, but the state was made with capacity={size}; "
            "make it with more"
        )
