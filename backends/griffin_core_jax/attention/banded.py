"""Attention of blocks of queries to just the keys that they can see: never all queries against all keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from griffin_core_jax.products import einsum

BLOCK = 256
"""Queries of one block."""
UNROLLED = 16
"""Blocks that are written out, each with exactly its keys; more are one loop over blocks of equal size."""
_OUT = -1e30
"""Score of a key that is not seen; its weight is exactly 0."""


def banded_attention(
    q: Array, keys: Array, values: Array, query_document: Array, key_document: Array, window: int | None
) -> Array:
    """softmax(q k^T / sqrt(e)) v over keys of the same document, not after the query, the last ``window`` of them.

    Args:
        q: [b t n e] rotated.
        keys, values: [b s+t e]: s earlier ones, then those of the queries.
        query_document, key_document: int32 [b t] and [b s+t]; equal numbers see each other.

    Returns:
        [b t n e] in q's dtype. A query that sees nothing gets the mean of the values, which means nothing.
    """
    time, past = q.shape[1], keys.shape[1] - q.shape[1]
    if time <= UNROLLED * BLOCK:
        found = []
        for start in range(0, time, BLOCK):
            stop = min(start + BLOCK, time)
            low = 0 if window is None else max(0, past + start - window + 1)
            part = (keys[:, low : past + stop], values[:, low : past + stop], key_document[:, low : past + stop])
            found.append(_block(q[:, start:stop], *part, query_document[:, start:stop], past + start - low, window))
        return jnp.concatenate(found, axis=1) if found else jnp.zeros_like(q)
    return _in_loop(q, keys, values, query_document, key_document, keys.shape[1] if window is None else window)


def _in_loop(q: Array, keys: Array, values: Array, query_document: Array, key_document: Array, window: int) -> Array:
    """One block after another, each with ``window - 1 + BLOCK`` keys."""
    time, before = q.shape[1], window - 1
    past, extra = keys.shape[1] - time, -time % BLOCK
    shift = before - past  # keys to put in front, or to leave out, so that every block has as many

    def arrange(x: Array, fill: int = 0) -> Array:
        x = x if shift >= 0 else x[:, -shift:]
        widths = [(0, 0), (max(shift, 0), extra), *[(0, 0)] * (x.ndim - 2)]
        return jnp.pad(x, widths, constant_values=fill)

    keys, values, key_document = arrange(keys), arrange(values), arrange(key_document, -2)
    q = jnp.pad(q, [(0, 0), (0, extra), (0, 0), (0, 0)])
    query_document = jnp.pad(query_document, [(0, 0), (0, extra)])

    def one(start: Array) -> Array:
        def cut(x: Array, length: int) -> Array:
            return lax.dynamic_slice_in_dim(x, start, length, axis=1)

        wide = before + BLOCK
        part = (cut(keys, wide), cut(values, wide), cut(key_document, wide))
        return _block(cut(q, BLOCK), *part, cut(query_document, BLOCK), before, window)

    blocks = lax.map(one, jnp.arange(0, time + extra, BLOCK))  # [c b BLOCK n e]
    return jnp.moveaxis(blocks, 0, 1).reshape(q.shape)[:, :time]


@jax.checkpoint
def _attend(q: Array, keys: Array, values: Array, seen: Array) -> Array:
    scores = einsum("bqne,bke->bqnk", q, keys) * (q.shape[-1] ** -0.5)
    scores = jnp.where(seen[:, :, None], scores, _OUT)
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    found = einsum("bqnk,bke->bqne", weights.astype(q.dtype), values)
    return (found / weights.sum(axis=-1, keepdims=True)).astype(q.dtype)


def _block(
    q: Array, keys: Array, values: Array, key_document: Array, query_document: Array, past: int, window: int | None
) -> Array:
    """One block: query i stands at key ``past + i``."""
    query, key = past + jnp.arange(q.shape[1])[:, None], jnp.arange(keys.shape[1])
    band = key <= query if window is None else (key <= query) & (key > query - window)
    seen = band & (query_document[..., None] == key_document[:, None])
    return _attend(q, keys, values, seen)
