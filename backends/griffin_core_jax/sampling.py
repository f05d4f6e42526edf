"""Choosing the next token inside compiled code: the algorithm of ``griffin_core.sampling``'s reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax, vmap

from griffin_core.sampling import Sampling, SamplingRows

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


@dataclass(frozen=True)
class Filters:
    """What a program is compiled for: which filters there are; their numbers are arguments.

    Attributes:
        greedy: take the best token.
        top_k: how many tokens are kept; 0 is all.
        top_p, min_p, penalty: whether the filter is on.
    """

    greedy: bool
    top_k: int
    top_p: bool
    min_p: bool
    penalty: bool

    @classmethod
    def of(cls, settings: Sampling) -> Filters:
        """The filters that these settings switch on."""
        penalty = settings.repetition_penalty != 1.0 and settings.repetition_window > 0
        if settings.greedy:
            return cls(True, 0, False, False, penalty)
        return cls(False, settings.top_k, settings.top_p < 1.0, settings.min_p > 0.0, penalty)


class Numbers(NamedTuple):
    """A sampler's numbers: float32 scalars, the rows' keys as two uint32 words [b 2], recent tokens int32 [b n]."""

    temperature: Any
    top_p: Any
    min_p: Any
    penalty: Any
    keys: Any
    recent: Any


def numbers_of(rows: SamplingRows, filters: Filters) -> Numbers:
    """The numbers of these rows; recent tokens are left out where nothing reads them."""
    seeds = np.asarray(rows.seeds).astype(np.uint64)
    words = [(seeds >> np.uint64(shift)) & np.uint64(0xFFFFFFFF) for shift in (0, 32)]
    recent = np.asarray(rows.recent, np.int32)
    settings = rows.settings
    values = (settings.temperature or 1.0, settings.top_p, settings.min_p, settings.repetition_penalty)
    return Numbers(
        *(np.float32(value) for value in values),
        np.stack(words, axis=1).astype(np.uint32),
        recent if filters.penalty else recent[:, :0],
    )


def uniform(keys: Array, positions: Array) -> Array:
    """float32 [b] in [0, 1), multiples of 2^-24: Threefry-2x32-20 of each row's key and counter (position, 0)."""
    first, second = keys[:, 0], keys[:, 1]
    schedule = (first, second, first ^ second ^ _PARITY)
    a, b = positions.astype(jnp.uint32) + first, second
    for group in range(5):
        for bits in _ROTATIONS[group % 2]:
            a = a + b
            b = ((b << bits) | (b >> (32 - bits))) ^ a
        a = a + schedule[(group + 1) % 3]
        b = b + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return (a >> 8).astype(jnp.float32) * np.float32(2.0**-24)


def sample(filters: Filters, numbers: Numbers, scores: Array, positions: Array) -> Array:
    """int32 [b]: one token for each row of scores float32 [b v].

    Args:
        positions: int32 [b], those that the tokens will have.
    """
    if filters.penalty:
        scores = _penalise(scores, numbers.recent, numbers.penalty)
    if filters.greedy:
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    ids = None
    if filters.top_k and filters.top_k < scores.shape[1]:
        ids = jnp.sort(lax.top_k(scores, filters.top_k)[1], axis=1)  # equal scores: lower ids first
        scores = jnp.take_along_axis(scores, ids, axis=1)
    weights = jnp.exp((scores - scores.max(axis=1, keepdims=True)) / numbers.temperature)
    if filters.top_p:
        weights = _nucleus(scores, weights, numbers.top_p)
    if filters.min_p:
        weights = jnp.where(weights >= numbers.min_p, weights, 0.0)
    reached = jnp.cumsum(weights, axis=1)
    drawn = uniform(numbers.keys, positions)[:, None] * reached[:, -1:]
    found = jnp.argmax(reached > drawn, axis=1).astype(jnp.int32)
    return found if ids is None else jnp.take_along_axis(ids, found[:, None], axis=1)[:, 0].astype(jnp.int32)


def push(numbers: Numbers, tokens: Array, live: Array) -> Numbers:
    """The numbers after one more token each; rows that are not ``live`` stay as they are."""
    if not numbers.recent.shape[1]:
        return numbers
    recent = jnp.concatenate([numbers.recent[:, 1:], tokens[:, None]], axis=1)
    return numbers._replace(recent=jnp.where(live[:, None], recent, numbers.recent))


def log_probability(scores: Array, tokens: Array) -> Array:
    """float32 [b]: log softmax of scores [b v] at the tokens int32 [b]."""
    top = scores.max(axis=1, keepdims=True)
    chosen = jnp.take_along_axis(scores, tokens[:, None], axis=1)
    return (chosen - top - jnp.log(jnp.exp(scores - top).sum(axis=1, keepdims=True)))[:, 0]


def _penalise(scores: Array, recent: Array, penalty: Array) -> Array:
    """Divide positive and multiply other scores of the recent tokens by the penalty (-1 is no token)."""

    def mark(ids: Array) -> Array:
        return jnp.zeros(scores.shape[1], bool).at[jnp.where(ids < 0, scores.shape[1], ids)].set(True, mode="drop")

    changed = jnp.where(scores > 0, scores / penalty, scores * penalty)
    return jnp.where(vmap(mark)(recent), changed, scores)


def _nucleus(scores: Array, weights: Array, top_p: Array) -> Array:
    """Weights with 0 outside the shortest prefix of the ranking whose probability reaches p."""
    ranking = jnp.argsort(-scores, axis=1, stable=True)
    ranked = jnp.take_along_axis(weights, ranking, axis=1)
    reached = jnp.cumsum(ranked, axis=1) / ranked.sum(axis=1, keepdims=True)
    kept = jnp.concatenate([jnp.ones_like(reached[:, :1], bool), reached[:, :-1] < top_p], axis=1)
    place = jnp.argsort(ranking, axis=1)
    return jnp.where(jnp.take_along_axis(kept, place, axis=1), weights, 0.0)
