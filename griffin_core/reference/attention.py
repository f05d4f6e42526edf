"""Rotary positions and local multi-query attention with a ring cache, one query after another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from griffin_core.checks import PAD
from griffin_core.errors import InputError
from griffin_core.reference.numeric import quiet, wide
from griffin_core.rotary import rotary_frequencies
from griffin_core.shapes import Array

Cache = Mapping[str, Array]


def rotate(x: Float[Array, "b t *n e"], positions: Int[Array, "b t"]) -> Float[Array, "b t *n e"]:
    """Rotary embedding of the first half of each head, in split-half pairs (i, i + e/4).

    Args:
        x: [b t e] or [b t n e].
        positions: int [b t] within each token's document.

    Returns:
        float64, the shape of x.
    """
    x = wide(x)
    quarter = x.shape[-1] // 4
    angles = np.asarray(positions, np.float64)[..., None] * rotary_frequencies(x.shape[-1])
    angles = angles.reshape(*angles.shape[:2], *(1,) * (x.ndim - 3), quarter)
    cos, sin = np.cos(angles), np.sin(angles)
    first, second, rest = np.split(x, [quarter, 2 * quarter], axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


@quiet
def local_attention(
    q: Float[Array, "b t n e"],
    k: Float[Array, "b t e"],
    v: Float[Array, "b t e"],
    positions: Int[Array, "b t"] | None = None,
    cache: Cache | None = None,
    window: int | None = None,
) -> tuple[Float[Array, "b t n e"], dict[str, Array] | None]:
    """softmax(q k^T / sqrt(e)) v over the last ``window`` tokens of the query's document, itself included.

    Args:
        q, k, v: before rotation; one key and value head for all n query heads.
        positions: int [b t], 0 starts a document, -1 is padding (output 0, attended by nobody). None
            continues at the cache's position, or starts a document without one.
        cache: "k", "v" [b s e] (position p of the current document in slot p mod s, keys rotated) and
            "position" int32 [b], the tokens already seen; None is empty.
        window: keys that a query sees; None is all of its document.

    Returns:
        (y, cache): float64 [b t n e], and the cache after the last token (None without one).

    Raises:
        InputError: the cache is shorter than the window or than a document attended globally.
    """
    batch, time = q.shape[:2]
    if positions is None:
        begin = np.zeros(batch, np.int32) if cache is None else np.asarray(cache["position"])
        positions = begin[:, None] + np.arange(time, dtype=np.int32)
    q, k, v = rotate(q, positions), rotate(k, positions), wide(v)
    out = None if cache is None else {name: np.array(x, np.float64) for name, x in cache.items() if name != "position"}
    ends = np.array([0] * batch if cache is None else cache["position"], np.int32)
    y = np.zeros(q.shape)
    for row in range(batch):
        real = np.flatnonzero(positions[row] != PAD)
        if not len(real):
            continue
        seen = 0 if cache is None else int(cache["position"][row])
        past = np.empty((0, 2, q.shape[-1])) if cache is None else _history(cache, row, seen)
        keys = np.concatenate([past, np.stack([k[row, real], v[row, real]], axis=1)])  # [past + real, 2, e]
        start = _attend_row(y[row], q[row], keys, real, positions[row], window)
        ends[row] = positions[row, real[-1]] + 1
        if out is not None:
            _store(out, row, keys[start:], int(ends[row]), window)
    return y, None if out is None else {**out, "position": ends}


def _history(cache: Cache, row: int, seen: int) -> Array:
    """[p 2 e]: the cached keys and values of the current document, oldest first."""
    size = cache["k"].shape[1]
    slots = np.arange(max(0, seen - size), seen) % size
    return np.stack([wide(cache[name][row, slots]) for name in ("k", "v")], axis=1)


def _attend_row(y: Array, q: Array, keys: Array, real: Array, positions: Array, window: int | None) -> int:
    """Fill y [t n e] for the real tokens of one row; return where the last document starts in ``keys``."""
    past = len(keys) - len(real)
    start = 0
    for index, t in enumerate(real):
        end = past + index + 1
        if positions[t] == 0:
            start = end - 1
        first = start if window is None else max(start, end - window)
        scores = q[t] @ keys[first:end, 0].T / np.sqrt(q.shape[-1])  # [n keys]
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        y[t] = (weights / weights.sum(axis=-1, keepdims=True)) @ keys[first:end, 1]
    return start


def _store(cache: dict[str, Array], row: int, keys: Array, seen: int, window: int | None) -> None:
    """Write a row of the cache in canonical form: the document's last s tokens, other slots zero."""
    size = cache["k"].shape[1]
    if window is None and seen > size:
        raise InputError(
            f"row {row} would hold {seen} tokens, but the state was made with capacity={size}; make it with more"
        )
    if window is not None and size < window:
        raise InputError(f"the cache holds {size} tokens, fewer than the window of {window}; make it at least as long")
    kept = keys[-size:]
    slots = np.arange(seen - len(kept), seen) % size
    for index, name in enumerate(("k", "v")):
        cache[name][row] = 0.0
        cache[name][row, slots] = kept[:, index]
