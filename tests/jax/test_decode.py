"""The compiled loop equals the model token by token, on each layer's own weights and on stacked ones."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import griffin_core_jax as backend
from griffin_core.errors import InputError
from griffin_core.sampling import Sampling, SamplingRows

GREEDY = Sampling(temperature=0.0)
LENGTHS = (10, 4, 0)


@pytest.fixture(scope="module")
def started(config, params):
    """A state of three rows that have seen 10, 4 and 0 tokens."""
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (3, 10)).astype(np.int32)
    positions = np.where(np.arange(10) < np.array(LENGTHS)[:, None], np.arange(10), -1).astype(np.int32)
    return backend.hidden(config, params, tokens, positions, backend.init_state(config, 3))[1]


def _by_forward(config, params, state, token, n):
    chosen = []
    for _ in range(n):
        scores, state = backend.forward(config, params, np.asarray(token)[:, None], None, state)
        token = np.asarray(scores[:, 0].argmax(1), np.int32)
        chosen.append(token)
    return np.stack(chosen, 1), state


@pytest.mark.parametrize("target", ["cpu", "cuda"], ids=["own weights", "stacked weights"])
def test_equals_forward(config, params, started, target: str) -> None:
    """Twelve tokens: past the window of seven in two rows, from nothing in the third."""
    rows = SamplingRows.start(GREEDY, [[1], [2], [3]])
    token = np.array([1, 2, 3], np.int32)
    kept = jax.tree.map(np.array, started)
    with backend.targeting(target):
        tokens, logprobs, after = backend.decode(config, params, started, token, 12, rows, kernel="loop")
    expected, end = _by_forward(config, params, started, token, 12)
    assert tokens.tolist() == expected.tolist()
    assert (np.asarray(logprobs) < 0).all()
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: (a == np.asarray(b)).all(), kept, started)))
    ours, theirs = backend.dump_state(config, after), backend.dump_state(config, end)
    for name, value in theirs.items():  # a few tokens through rounded products of a few dozen terms
        assert np.abs(ours[name] - value).max() <= 64 * 2.0**-24 * max(1.0, np.abs(value).max()), name


def test_in_two_calls_and_with_rows_at_rest(config, params, started) -> None:
    rows = SamplingRows.start(Sampling(seed=11, repetition_penalty=1.5), [[1], [2], [3]])
    whole, _, end = backend.decode(config, params, started, [1, 2, 3], 9, rows)
    first, _, middle = backend.decode(config, params, started, [1, 2, 3], 4, rows)
    for column in np.asarray(first).T:
        rows = rows.push(column)
    rest, scores, after = backend.decode(config, params, middle, first[:, -1], 5, rows, active=[True, False, True])
    assert np.concatenate([first, rest], 1)[[0, 2]].tolist() == np.asarray(whole)[[0, 2]].tolist()
    assert rest[1].tolist() == [-1] * 5
    assert scores[1].tolist() == [0.0] * 5
    assert after["position"].tolist() == [19, 8, 9]
    assert end["position"].tolist() == [19, 13, 9]
    assert (
        backend.dump_state(config, after)["layers.0.h"][1] == backend.dump_state(config, middle)["layers.0.h"][1]
    ).all()


def test_one_program_for_many_settings(config, params, started) -> None:
    """Temperatures, thresholds, seeds and counts are arguments; a filter that is switched on makes a new program."""
    from griffin_core_jax.decoding import loop

    def run(n: int, **settings: object) -> list[list[int]]:
        rows = SamplingRows.start(Sampling(**settings), [[1], [2], [3]])
        return backend.decode(config, params, started, [1, 2, 3], n, rows)[0].tolist()

    run(5, temperature=0.7, top_p=0.9, seed=1)
    compiled = loop._decode._cache_size()
    found = {str(run(n, temperature=t, top_p=p, seed=s)) for n, t, p, s in ((5, 0.7, 0.9, 2), (9, 3.0, 0.5, 1))}
    assert loop._decode._cache_size() == compiled
    assert len(found) == 2


def test_nothing_to_do_and_refusals(config, params, started) -> None:
    rows = SamplingRows.start(GREEDY, [[1], [2], [3]])
    tokens, logprobs, after = backend.decode(config, params, started, [1, 2, 3], 0, rows)
    assert tokens.shape == logprobs.shape == (3, 0)
    assert after["position"].tolist() == list(LENGTHS)
    with pytest.raises(InputError, match="n=-1"):
        backend.decode(config, params, started, [1, 2, 3], -1, rows)
    with pytest.raises(InputError, match="token id 999"):
        backend.decode(config, params, started, [999, 1, 1], 1, rows)
    everywhere = config.replace(attention_window=None)
    with pytest.raises(InputError, match="capacity=4"):
        backend.decode(everywhere, params, backend.init_state(everywhere, 3, capacity=4), [1, 1, 1], 5, rows)
