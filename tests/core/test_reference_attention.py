"""Local attention against a dense masked softmax over whole documents."""

from __future__ import annotations

import math

import numpy as np
import pytest

from griffin_core.errors import InputError
from griffin_core.reference import local_attention
from griffin_core.reference.attention import rotate

RNG = np.random.default_rng(1)
HEADS, SIZE = 3, 8


def drawn(batch: int, time: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        RNG.standard_normal((batch, time, HEADS, SIZE)),
        RNG.standard_normal((batch, time, SIZE)),
        RNG.standard_normal((batch, time, SIZE)),
    )


def empty_cache(batch: int, length: int) -> dict[str, np.ndarray]:
    zeros = np.zeros((batch, length, SIZE))
    return {"k": zeros, "v": zeros, "position": np.zeros(batch, np.int32)}


def dense(q, k, v, positions: np.ndarray, window: int | None) -> np.ndarray:
    """Every pair of tokens, masked: same document, not later, not padding, at most window - 1 before."""
    q, k = rotate(q, positions), rotate(k, positions)
    y = np.zeros_like(q)
    for b, t in np.ndindex(positions.shape):
        p = positions[b, t]
        if p < 0:
            continue
        reach = p + 1 if window is None else min(p + 1, window)
        real = [s for s in range(t + 1) if positions[b, s] >= 0][-reach:]
        for n in range(HEADS):
            scores = [float(q[b, t, n] @ k[b, s]) / math.sqrt(SIZE) for s in real]
            top = max(scores)
            weights = [math.exp(score - top) for score in scores]
            y[b, t, n] = sum(w * v[b, s] for w, s in zip(weights, real, strict=True)) / sum(weights)
    return y


@pytest.mark.parametrize("window", [1, 2, 5, 100, None])
def test_equals_the_dense_form(window: int | None) -> None:
    q, k, v = drawn(2, 11)
    positions = np.array([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4], [-1, 0, 1, -1, 2, 3, 4, 5, 6, 0, -1]])
    y, cache = local_attention(q, k, v, positions, None, window)
    assert cache is None
    np.testing.assert_allclose(y, dense(q, k, v, positions, window), rtol=1e-12, atol=1e-13)


def test_the_window_counts_the_query_itself() -> None:
    q, k, v = drawn(1, 4)
    y, _ = local_attention(q, k, v, window=1)
    np.testing.assert_allclose(y, np.repeat(v[:, :, None], HEADS, axis=2))
    v[0, 0] = 1e6
    y, _ = local_attention(q, k, v, window=3)
    assert np.abs(y[0, 2]).max() > 1
    assert np.abs(y[0, 3]).max() < 10


@pytest.mark.parametrize(("window", "length"), [(3, 3), (3, 5), (None, 12)])
@pytest.mark.parametrize("cut", [0, 1, 2, 5, 9, 10])
def test_a_cache_continues(window: int | None, length: int, cut: int) -> None:
    q, k, v = drawn(2, 10)
    positions = np.array([np.arange(10), [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]])
    whole, end = local_attention(q, k, v, positions, empty_cache(2, length), window)
    first, cache = local_attention(
        q[:, :cut], k[:, :cut], v[:, :cut], positions[:, :cut], empty_cache(2, length), window
    )
    rest, cache = local_attention(q[:, cut:], k[:, cut:], v[:, cut:], positions[:, cut:], cache, window)
    np.testing.assert_allclose(np.concatenate([first, rest], axis=1), whole, rtol=1e-13, atol=1e-14)
    for name in ("k", "v", "position"):
        np.testing.assert_array_equal(cache[name], end[name])


def test_cache_slots_hold_positions_modulo_the_length_and_zeros_elsewhere() -> None:
    q, k, v = drawn(2, 5)
    positions = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]])
    _, cache = local_attention(q, k, v, positions, empty_cache(2, 4), 3)
    keys = rotate(k, positions)
    np.testing.assert_array_equal(cache["k"][0], keys[0, [4, 1, 2, 3]])
    np.testing.assert_array_equal(cache["v"][0], v[0, [4, 1, 2, 3]])
    np.testing.assert_array_equal(cache["k"][1, :2], keys[1, 3:])
    np.testing.assert_array_equal(cache["k"][1, 2:], 0)
    np.testing.assert_array_equal(cache["position"], [5, 2])
    assert cache["position"].dtype == np.int32


def test_padding_changes_nothing_and_a_row_of_padding_keeps_its_cache() -> None:
    q, k, v = drawn(2, 3)
    _, cache = local_attention(q, k, v, None, empty_cache(2, 4), 4)
    poison = np.full((2, 1, SIZE), np.nan)
    y, after = local_attention(poison[:, :, None], poison, poison, np.array([[-1], [-1]]), cache, 4)
    np.testing.assert_array_equal(y, 0)
    for name in cache:
        np.testing.assert_array_equal(after[name], cache[name])


def test_caches_that_are_too_short_are_refused() -> None:
    q, k, v = drawn(1, 6)
    with pytest.raises(InputError, match="row 0 would hold 6 tokens, but the state was made with capacity=5"):
        local_attention(q, k, v, None, empty_cache(1, 5), None)
    with pytest.raises(InputError, match="the cache holds 3 tokens, fewer than the window of 4"):
        local_attention(q, k, v, None, empty_cache(1, 3), 4)
    local_attention(q, k, v, np.array([[0, 1, 2, 0, 1, 2]]), empty_cache(1, 3), None)


def test_large_scores_do_not_overflow() -> None:
    q, k, v = drawn(1, 4)
    y, _ = local_attention(q * 1e4, k * 1e4, v)
    assert np.isfinite(y).all()
    # At position 0 nothing is rotated and only one key is seen.
    np.testing.assert_allclose(y[0, 0], np.repeat(v[0, :1], HEADS, axis=0))
