"""local_attention as users call it."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from griffin_core.checks import PAD, expect_shape, held_after
from griffin_core_jax.arrays import is_concrete
from griffin_core_jax.attention.banded import banded_attention
from griffin_core_jax.attention.ring import check_room, ends, recall, store
from griffin_core_jax.attention.rotation import rotate
from griffin_core_jax.attention.splash import splash_attention, unfit
from griffin_core_jax.devices import platform, targeting


def local_attention(
    q: Array,
    k: Array,
    v: Array,
    positions: Array | None = None,
    cache: Mapping[str, Array] | None = None,
    window: int | None = None,
) -> tuple[Array, dict[str, Array] | None]:
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
    if cache is not None and is_concrete(cache["position"], positions):
        check_room(cache["k"].shape[1], window, held_after(positions, cache["position"], q.shape[1]))
    return _attention(platform(q), window, q, k, v, positions, cache)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _attention(
    where: str,
    window: int | None,
    q: Array,
    k: Array,
    v: Array,
    positions: Array | None,
    cache: Mapping[str, Array] | None,
) -> tuple[Array, dict[str, Array] | None]:
    """The operation as a program for one platform."""
    with targeting(where):
        return _attend(q, k, v, positions, cache, window)


def _attend(
    q: Array,
    k: Array,
    v: Array,
    positions: Array | None,
    cache: Mapping[str, Array] | None,
    window: int | None,
) -> tuple[Array, dict[str, Array] | None]:
    batch, time = q.shape[:2]
    for name, value in (("k", k), ("v", v)):
        expect_shape("local_attention", name, value, (batch, time, q.shape[3]))
    if positions is None:
        begin = jnp.zeros(batch, jnp.int32) if cache is None else cache["position"]
        positions = begin[:, None] + jnp.arange(time, dtype=jnp.int32)
    q, k = rotate(q, positions), rotate(k, positions)
    document = jnp.cumsum(positions == 0, axis=1, dtype=jnp.int32)
    pad = positions == PAD
    v = jnp.where(pad[..., None], 0, v)  # a weight of 0 does not keep NaN away
    if cache is None:
        if unfit(platform(), q.dtype, time, q.shape[3]) is None:
            y = splash_attention(q, k, v, document, window)
        else:
            y = banded_attention(q, k, v, document, document, window)
        return jnp.where(pad[..., None, None], 0, y), None
    real, after = ends(positions, cache["position"])
    size = cache["k"].shape[1]
    check_room(size, window, after)
    held = jnp.arange(size) >= size - cache["position"][:, None]  # [b s], oldest first
    keys, values = (
        jnp.concatenate([recall(cache[name], cache["position"]).astype(x.dtype), x], axis=1)
        for name, x in (("k", k), ("v", v))
    )
    y = banded_attention(q, keys, values, document, jnp.concatenate([jnp.where(held, 0, -1), document], 1), window)
    new = {name: store(cache[name], x, real, after) for name, x in (("k", k), ("v", v))}
    return jnp.where(pad[..., None, None], 0, y), {**new, "position": after}
