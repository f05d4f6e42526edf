"""The cache of keys and values: position p of the current document stands in slot p mod s."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from griffin_core.checks import PAD, check_capacity, check_window
from griffin_core_jax.arrays import is_concrete


def ends(positions: Array, before: Array) -> tuple[Array, Array]:
    """(real, after), int32 [b]: tokens of each right-padded row, and its state's position after them."""
    real = (positions != PAD).sum(axis=1, dtype=jnp.int32)
    if not positions.shape[1]:
        return real, before
    last = jnp.take_along_axis(positions, jnp.maximum(real - 1, 0)[:, None], axis=1)[:, 0]
    return real, jnp.where(real > 0, last + 1, before)


def recall(cache: Array, seen: Array) -> Array:
    """[b s e] in order of age, oldest first; slots that hold nothing stand first and are zero.

    Args:
        cache: [b s e].
        seen: int32 [b], tokens of the current document.
    """
    size = cache.shape[1]
    at = seen[:, None] - size + jnp.arange(size, dtype=seen.dtype)  # positions
    found = jnp.take_along_axis(cache, (at % size)[..., None], axis=1)
    return jnp.where((at >= 0)[..., None], found, 0)


def store(cache: Array, new: Array, real: Array, after: Array) -> Array:
    """The cache after the tokens ``new``: each slot's newest position, zeros where the document has none.

    Args:
        cache: [b s e].
        new: [b t e], right-padded.
        real: int32 [b], how many of them are no padding.
        after: int32 [b], tokens of the current document after them.
    """
    size = cache.shape[1]
    if not new.shape[1]:
        return cache
    back = (after[:, None] - 1 - jnp.arange(size, dtype=after.dtype)) % size  # of each slot's token from the last one
    index = real[:, None] - 1 - back
    fresh = jnp.take_along_axis(new, jnp.maximum(index, 0)[..., None], axis=1).astype(cache.dtype)
    kept = jnp.where((index >= 0)[..., None], fresh, cache)
    return jnp.where((after[:, None] - 1 - back >= 0)[..., None], kept, 0)


def check_room(size: int, window: int | None, after: Array) -> None:
    """Refuse a cache that is too short; how many tokens it will hold is known outside compiled code only.

    Raises:
        InputError: it is shorter than the window, or than a document that is attended globally.
    """
    if window is not None:
        check_window(size, window)
    elif is_concrete(after):
        check_capacity(size, np.asarray(after))
