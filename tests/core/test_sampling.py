"""The sampler: known answers of the generator, order of filters, ties, distribution."""

from __future__ import annotations

import numpy as np
import pytest

from griffin_core.errors import ConfigError
from griffin_core.reference.sampling import penalise, sample, threefry2x32, uniform, weights
from griffin_core.sampling import Sampling, SamplingRows

SCORES = np.log(np.array([0.05, 0.4, 0.1, 0.25, 0.2]))


def rows(settings: Sampling, batch: int = 1) -> SamplingRows:
    return SamplingRows.start(settings, [[] for _ in range(batch)])


def kept(**settings: object) -> list[int]:
    return np.flatnonzero(weights(SCORES, Sampling(**settings))).tolist()


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_known_answers(key: tuple, counter: tuple, words: tuple) -> None:
    assert tuple(int(word) for word in threefry2x32(key, counter)) == words
    many = threefry2x32(tuple(np.full(3, k) for k in key), tuple(np.full(3, c) for c in counter))
    assert [word.tolist() for word in many] == [[word] * 3 for word in words]


def test_uniform_uses_both_halves_of_the_seed_and_the_position() -> None:
    draws = uniform(np.array([0, 1, 1 << 32, 0]), np.array([0, 0, 0, 1]))
    assert len(set(draws.tolist())) == 4
    assert draws[0] == (0x6B200159 >> 8) / 2**24
    word, _ = threefry2x32((np.uint32(5), np.uint32(7)), (np.uint32(123), np.uint32(0)))
    assert uniform(np.array([(7 << 32) + 5]), np.array([123]))[0] == (int(word) >> 8) / 2**24


def test_uniform_is_uniform() -> None:
    draws = np.sort(uniform(np.zeros(20_000, np.int64), np.arange(20_000)))
    assert draws[0] >= 0
    assert draws[-1] < 1
    # Kolmogorov's statistic, value exceeded once in a million
    assert np.abs(draws - (np.arange(20_000) + 0.5) / 20_000).max() < 2.7 / np.sqrt(20_000)


def test_filters_keep_what_they_say() -> None:
    assert kept() == [0, 1, 2, 3, 4]
    assert kept(top_k=2) == [1, 3]
    assert kept(top_k=9) == [0, 1, 2, 3, 4]
    assert kept(top_p=0.4 - 1e-9) == [1]
    assert kept(top_p=0.4 + 1e-9) == [1, 3]
    assert kept(top_p=0.66) == [1, 3, 4]
    assert kept(top_p=1e-9) == [1]
    assert kept(min_p=0.5) == [1, 3, 4]
    assert kept(min_p=1.0) == [1]


def test_filters_apply_in_order() -> None:
    # After top-k=2 the probabilities are 0.4/0.65 and 0.25/0.65: top-p=0.6 is reached by the first alone.
    assert kept(top_k=2, top_p=0.6) == [1]
    assert kept(top_p=0.6) == [1, 3]
    # A temperature comes before top-p: at 0.5 the probabilities are proportional to the squares.
    assert kept(temperature=0.5, top_p=0.58) == [1]
    assert kept(temperature=2.0, top_p=0.58) == [1, 3, 4]
    assert kept(temperature=2.0, min_p=0.5) == [1, 2, 3, 4]
    # The penalty comes first: the most probable token loses its place.
    chosen, _ = sample(
        SCORES[None], SamplingRows.start(Sampling(repetition_penalty=5.0, top_k=1), [[1]]), np.zeros(1, int)
    )
    assert chosen[0] == 3


def test_ties_go_to_the_lower_id() -> None:
    tied = np.zeros(5)
    assert np.flatnonzero(weights(tied, Sampling(top_k=2))).tolist() == [0, 1]
    assert np.flatnonzero(weights(tied, Sampling(top_p=0.41))).tolist() == [0, 1, 2]
    tied[1] = -1
    assert np.flatnonzero(weights(tied, Sampling(top_k=3))).tolist() == [0, 2, 3]
    assert sample(np.array([[1.0, 3, 3, 2]]), rows(Sampling(temperature=0)), np.zeros(1, int))[0][0] == 1


def test_penalty_divides_positive_and_multiplies_other_scores() -> None:
    scores = np.array([2.0, -2.0, 4.0, 0.0])
    np.testing.assert_array_equal(penalise(scores, np.array([-1, 0, 1, 3, 0]), 2.0), [1, -4, 4, 0])
    np.testing.assert_array_equal(scores, [2, -2, 4, 0])
    np.testing.assert_array_equal(penalise(scores, np.array([-1, -1]), 2.0), scores)


def test_log_probabilities_are_the_models_own() -> None:
    settings = Sampling(temperature=0.5, top_k=1, repetition_penalty=3.0)
    tokens, logprobs = sample(SCORES[None] + 7, SamplingRows.start(settings, [[1]]), np.zeros(1, int))
    assert logprobs[0] == pytest.approx(SCORES[tokens[0]], rel=1e-12)


def test_the_draw_walks_the_ids_in_order() -> None:
    """With u known, the token is the first whose cumulative weight exceeds u of the total."""
    positions = np.arange(200)
    u = uniform(np.full(200, 11), positions)
    seeds = SamplingRows(Sampling(), np.full(200, 11), np.full((200, 64), -1, np.int32))
    tokens, _ = sample(np.tile(SCORES, (200, 1)), seeds, positions)
    np.testing.assert_array_equal(tokens, np.searchsorted(np.cumsum(np.exp(SCORES)), u, side="right"))


@pytest.mark.parametrize("settings", [Sampling(), Sampling(temperature=0.7, top_k=4, top_p=0.9)])
def test_the_distribution_is_right(settings: Sampling) -> None:
    n = 8_000
    many = SamplingRows(settings, np.arange(n), np.full((n, 64), -1, np.int32))
    tokens, _ = sample(np.tile(SCORES, (n, 1)), many, np.full(n, 17))
    expected = weights(SCORES, settings)
    expected = n * expected / expected.sum()
    counts = np.bincount(tokens, minlength=5)
    np.testing.assert_array_equal(counts[expected == 0], 0)
    live = expected > 0
    # chi squared with at most 4 degrees of freedom exceeds 33 once in a million
    assert ((counts[live] - expected[live]) ** 2 / expected[live]).sum() < 33


def test_extreme_scores() -> None:
    scores = np.array([[-np.inf, 1e308, -1e308, 1e308]])
    for settings in (Sampling(), Sampling(temperature=1e-300), Sampling(temperature=0), Sampling(top_p=0.9, min_p=0.1)):
        tokens, _ = sample(scores, rows(settings), np.zeros(1, int))
        assert tokens[0] in (1, 3)


def test_rows_are_independent_and_seeded_apart() -> None:
    flat = np.zeros((4, 1000))
    tokens, _ = sample(flat, rows(Sampling(seed=5), 4), np.full(4, 9))
    assert len(set(tokens.tolist())) > 1
    alone, _ = sample(flat[:1], rows(Sampling(seed=7)), np.full(1, 9))
    assert tokens[2] == alone[0]


def test_rows_remember_the_last_tokens() -> None:
    state = SamplingRows.start(Sampling(repetition_window=3), [[1, 2, 3, 4], [9], []])
    assert state.recent.tolist() == [[2, 3, 4], [-1, -1, 9], [-1, -1, -1]]
    after = state.push(np.array([7, 8, 6]), np.array([True, False, True]))
    assert after.recent.tolist() == [[3, 4, 7], [-1, -1, 9], [-1, -1, 6]]
    assert state.recent.tolist()[0] == [2, 3, 4]
    assert after.push(np.array([1, 1, 1])).recent.tolist() == [[4, 7, 1], [-1, 9, 1], [-1, 6, 1]]
    none = SamplingRows.start(Sampling(repetition_window=0), [[1]])
    assert none.push(np.array([2])).recent.shape == (1, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, "temperature=-0.1; expected a number of at least 0"),
        ({"temperature": "hot"}, "temperature='hot'; expected a number"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_k": -1}, "top_k=-1; expected an integer of at least 0"),
        ({"top_k": 1.5}, "top_k=1.5"),
        ({"top_p": 0.0}, r"top_p=0.0; expected a number in \(0, 1\]"),
        ({"min_p": 1.1}, r"min_p=1.1; expected a number in \[0, 1\]"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0; expected a positive number"),
        ({"repetition_window": -1}, "repetition_window=-1"),
        ({"seed": -1}, r"seed=-1; expected an integer in \[0, 2\^63\)"),
        ({"seed": True}, "seed=True"),
    ],
)
def test_illegal_settings(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampling(**changes)
