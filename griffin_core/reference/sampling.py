"""The sampler: order of filters, ties and the counter-based generator. Every backend draws the same integers.

Order: repetition penalty, greedy or temperature, top-k, top-p, min-p, draw. Where tokens are ranked, equal
scores are ranked by id, lower first.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from griffin_core.reference.numeric import quiet, wide
from griffin_core.sampling import Sampling, SamplingRows
from griffin_core.shapes import Array

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_ROUND_GROUPS = 5


@quiet
def threefry2x32(key: tuple[ArrayLike, ArrayLike], counter: tuple[ArrayLike, ArrayLike]) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011): two uint32 words for each key and counter."""
    keys = [np.asarray(word, np.uint32) for word in key]
    keys.append(keys[0] ^ keys[1] ^ _PARITY)
    a = np.asarray(counter[0], np.uint32) + keys[0]
    b = np.asarray(counter[1], np.uint32) + keys[1]
    for group in range(_ROUND_GROUPS):
        for bits in _ROTATIONS[group % 2]:
            a = a + b
            b = ((b << np.uint32(bits)) | (b >> np.uint32(32 - bits))) ^ a
        a = a + keys[(group + 1) % 3]
        b = b + keys[(group + 2) % 3] + np.uint32(group + 1)
    return a, b


def uniform(seeds: Int[Array, " b"], positions: Int[Array, " b"]) -> Float[Array, " b"]:
    """float64 [b] in [0, 1), multiples of 2^-24: one draw for each (seed, position of the token drawn)."""
    seeds = np.asarray(seeds).astype(np.uint64)
    key = ((seeds & np.uint64(0xFFFFFFFF)).astype(np.uint32), (seeds >> np.uint64(32)).astype(np.uint32))
    counter = np.asarray(positions).astype(np.uint32)
    word, _ = threefry2x32(key, (counter, np.zeros_like(counter)))
    drawn: Array = wide(word >> np.uint32(8)) * 2.0**-24
    return drawn


def penalise(scores: Float[Array, " v"], recent: Int[Array, " n"], penalty: float) -> Float[Array, " v"]:
    """Divide positive and multiply other scores of the recent tokens by the penalty (-1 is no token)."""
    ids = np.unique(recent[recent >= 0])
    out = np.array(scores)
    out[ids] = np.where(out[ids] > 0, out[ids] / penalty, out[ids] * penalty)
    return out


@quiet
def weights(scores: Float[Array, " v"], settings: Sampling) -> Float[Array, " v"]:
    """exp((score - max) / temperature) of the tokens that the filters keep, 0 of the others."""
    scaled = np.exp((scores - scores.max()) / settings.temperature)
    ranking = np.argsort(-scores, kind="stable")
    if settings.top_k:
        ranking = ranking[: settings.top_k]
    if settings.top_p < 1.0:
        reached = np.cumsum(scaled[ranking]) / scaled[ranking].sum()
        ranking = ranking[: 1 + int((reached < settings.top_p).sum())]
    kept = ranking[scaled[ranking] >= settings.min_p * scaled[ranking[0]]]
    out: Array = np.zeros(scaled.shape)
    out[kept] = scaled[kept]
    return out


@quiet
def sample(
    scores: Float[Array, "b v"], rows: SamplingRows, positions: Int[Array, " b"]
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """Choose one token for each row.

    Args:
        scores: [b v] logits.
        rows: settings, seeds and recent tokens.
        positions: int [b], the position that the chosen token will have.

    Returns:
        (tokens, logprobs): int32 [b], and the log-softmax of ``scores`` at them, float64 [b].
    """
    scores = wide(scores)
    draws = uniform(rows.seeds, positions)
    settings = rows.settings
    tokens = np.empty(len(scores), np.int32)
    for row, values in enumerate(scores):
        values = penalise(values, rows.recent[row], settings.repetition_penalty)
        if settings.greedy:
            tokens[row] = np.argmax(values)
            continue
        total = np.cumsum(weights(values, settings))
        tokens[row] = np.argmax(total > draws[row] * total[-1])
    top = scores.max(axis=1)
    norm: Array = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    return tokens, scores[np.arange(len(scores)), tokens] - norm
