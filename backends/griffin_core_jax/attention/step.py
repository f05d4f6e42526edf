"""One query against the ring alone: the newest key is written first."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax, vmap

from griffin_core.checks import PAD
from griffin_core_jax.attention.rotation import rotate
from griffin_core_jax.products import einsum

_OUT = -1e30


def attend_step(
    q: Array, k: Array, v: Array, positions: Array, keys: Array, values: Array
) -> tuple[Array, Array, Array]:
    """``local_attention`` of one token whose window is the whole ring.

    Args:
        q: [b 1 n e] before rotation.
        k, v: [b 1 e] before rotation.
        positions: int32 [b 1]; -1 leaves a row's ring as it is.
        keys, values: [b s e], the ring.

    Returns:
        (y [b 1 n e], keys, values): a row with position -1 has any y.
    """
    size, at = keys.shape[1], jnp.maximum(positions[:, 0], 0)
    q, k = rotate(q, positions), rotate(k, positions)
    live = (positions[:, 0] != PAD)[:, None, None]
    keys, values = (_write(ring, new, at % size, live) for ring, new in ((keys, k), (values, v)))
    scores = einsum("bne,bse->bns", q[:, 0], keys)
    held = jnp.arange(size) <= at[:, None]
    scores = jnp.where(held[:, None], scores * q.shape[-1] ** -0.5, _OUT)
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    y = einsum("bns,bse->bne", weights.astype(q.dtype), values)
    return (y / weights.sum(axis=-1)[..., None]).astype(q.dtype)[:, None], keys, values


def _write(ring: Array, new: Array, slot: Array, live: Array) -> Array:
    """ring [b s e] with new [b 1 e] in each live row's slot."""

    def one(line: Array, value: Array, index: Array, real: Array) -> Array:
        old = lax.dynamic_slice_in_dim(line, index, 1, axis=0)
        return lax.dynamic_update_slice_in_dim(line, jnp.where(real[0], value.astype(line.dtype), old), index, axis=0)

    return vmap(one)(ring, new, slot, live)
