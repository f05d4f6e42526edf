"""The error bound of local attention: rotation, scores, softmax, weighted sum, and the cache."""

from __future__ import annotations

import numpy as np

from griffin_core.checks import PAD
from griffin_core.reference.attention import rotate
from griffin_core.reference.numeric import wide
from griffin_core.shapes import UNIT_ROUNDOFF, Array
from griffin_core.testing.analysis import Approx, einsum, exact
from griffin_core.testing.inputs import Inputs
from griffin_core.testing.tolerance import U, dtype_name

_ROTATION = 6.0
"""Roundings of one rotated number: cosine and sine of a sum of two tabulated angles, two products, a sum."""


def local_attention(inputs: Inputs) -> dict[str, Array]:
    """Error bounds of y and, with a cache, of its keys (values and position are copied exactly)."""
    dtype = dtype_name(inputs["q"].dtype)
    places = query_positions(inputs)
    q = rotated(inputs["q"], places).stored(dtype)
    k = rotated(inputs["k"], places).stored(dtype)
    keys, values, visible = _keys(inputs, places, k)
    scale = inputs["q"].shape[-1] ** -0.5
    scores = einsum("bqne,bse->bnqs", q, keys, terms=q.value.shape[-1]).scaled(scale)
    bounds = {"y": _weighted_sum(scores, values, visible, dtype)}
    if inputs["cache_k"] is not None:
        worst = k.error.max(initial=0.0)
        old = np.zeros(inputs["cache_k"].shape)
        bounds |= {"cache_k": old + worst, "cache_v": old, "cache_position": np.zeros(len(old))}
    return bounds


def query_positions(inputs: Inputs) -> Array:
    """The positions given, or those that continue the cache."""
    if inputs["positions"] is not None:
        given: Array = inputs["positions"]
        return given
    rows, time = inputs["q"].shape[:2]
    seen = np.zeros(rows, np.int32) if inputs["cache_position"] is None else inputs["cache_position"]
    first: Array = seen[:, None]
    return first + np.arange(time, dtype=np.int32)


def rotated(x: Array, places: Array) -> Approx:
    """x after rotation: each number mixes with its partner, so its error is that of both."""
    value = rotate(x, places)
    size = np.abs(np.asarray(x, np.float64))
    quarter = x.shape[-1] // 4
    pair = size[..., :quarter] + size[..., quarter : 2 * quarter]
    error = np.concatenate([pair, pair, np.zeros_like(size[..., 2 * quarter :])], axis=-1)
    return Approx(value, _ROTATION * U * error)


def _keys(inputs: Inputs, places: Array, k: Approx) -> tuple[Approx, Array, Array]:
    """(keys [b s+t e], values, visible bool [b t s+t]): the cache's slots, then the new tokens."""
    document = np.cumsum(places == 0, axis=1)
    key_place, key_document, values = places, np.where(places == PAD, -1, document), wide(inputs["v"])
    if inputs["cache_k"] is not None:
        slots = inputs["cache_k"].shape[1]
        last = inputs["cache_position"][:, None].astype(np.int64) - 1
        place = last - (last - np.arange(slots)) % slots
        key_place = np.concatenate([place, key_place], axis=1)
        key_document = np.concatenate([np.where(place < 0, -1, 0), key_document], axis=1)
        old = exact(inputs["cache_k"])
        k = Approx(*(np.concatenate(pair, axis=1) for pair in ((old.value, k.value), (old.error, k.error))))
        values = np.concatenate([wide(inputs["cache_v"]), values], axis=1)
    behind = places[:, :, None] - key_place[:, None, :]
    visible = (document[:, :, None] == key_document[:, None, :]) & (behind >= 0) & (places != PAD)[..., None]
    if inputs["window"] is not None:
        visible &= behind < inputs["window"]
    return k, values, visible


def _weighted_sum(scores: Approx, values: Array, visible: Array, dtype: str) -> Array:
    """sum p v / sum p: each weight is off by the spread of its score, by exp, by storing it; sums take any order."""
    seen = visible[:, None]  # [b 1 t s]
    value = np.where(seen, scores.value, -np.inf)
    top = np.where(seen.any(-1, keepdims=True), value.max(-1, keepdims=True, initial=-np.inf), 0.0)
    weight = np.exp(value - top)
    total = np.maximum(weight.sum(-1, keepdims=True), np.finfo(np.float64).tiny)
    weight = weight / total
    stored = UNIT_ROUNDOFF[dtype] if dtype != "float32" else 0.0
    distance = np.where(seen, top - value, 0.0)
    relative = np.expm1(np.where(seen, scores.error, 0.0)) + U * (4.0 + distance) + stored
    size = np.abs(values)
    keys = visible.sum(-1)[:, None, :, None]
    mean_error = (weight * relative).sum(-1)[..., None]
    magnitude = np.einsum("bnqs,bse->bnqe", weight, size)
    error = np.einsum("bnqs,bse->bnqe", weight * relative, size) + magnitude * (mean_error + (2 * keys + 3) * U)
    by_query: Array = error.transpose(0, 2, 1, 3)
    return by_query
