"""Decoding on private buffers equals the model token by token, whatever the rows' positions and dtypes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import griffin_core_torch as backend
from griffin_core import presets
from griffin_core.errors import InputError
from griffin_core.sampling import Sampling, SamplingRows
from griffin_core_torch.decoding import derived
from griffin_core_torch.sampling import Sampler, first_best, log_probability

CONFIG = presets.preset("griffin-tiny").config.replace(num_layers=3, attention_window=7)
GREEDY = Sampling(temperature=0.0)
BATCH, SEEN = 3, 10


def _start(params, rng: np.random.Generator, lengths: tuple[int, ...], dtype: str = "float32"):
    tokens = torch.tensor(rng.integers(0, CONFIG.vocab_size, (BATCH, SEEN)))
    positions = torch.arange(SEEN, dtype=torch.int32).expand(BATCH, SEEN)
    positions = torch.where(positions < torch.tensor(lengths)[:, None], positions, -1)
    with torch.no_grad():
        return backend.hidden(CONFIG, params, tokens, positions, backend.init_state(CONFIG, BATCH, dtype=dtype))[1]


def _greedy_by_forward(params, state, token: torch.Tensor, n: int) -> tuple[list[torch.Tensor], dict]:
    chosen = []
    with torch.no_grad():
        for _ in range(n):
            scores, state = backend.forward(CONFIG, params, token[:, None], None, state)
            token = scores[:, 0].argmax(1)
            chosen.append(token)
    return chosen, state


@pytest.mark.parametrize("lengths", [(10, 10, 10), (10, 4, 0), (0, 0, 0)], ids=["equal", "unequal", "fresh"])
def test_equals_forward(lengths: tuple[int, ...], draw, rng: np.random.Generator) -> None:
    params = draw(CONFIG)
    state = _start(params, rng, lengths)
    kept = {name: x.clone() for name, x in state.items()}
    token = torch.tensor([1, 2, 3])
    rows = SamplingRows.start(GREEDY, [[1], [2], [3]])
    tokens, logprobs, after = backend.decode(CONFIG, params, state, token, 12, rows)
    expected, end = _greedy_by_forward(params, state, token, 12)
    assert tokens.tolist() == torch.stack(expected, 1).tolist()
    assert (logprobs < 0).all()
    assert all(torch.equal(kept[name], x) for name, x in state.items())
    _same_states(after, end, 2.0**-24)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_it_returns_can_be_used_in_training(dtype: str, draw, rng: np.random.Generator) -> None:
    params = draw(CONFIG, dtype=dtype)
    state = _start(params, rng, (10, 4, 0), dtype)
    rows = SamplingRows.start(GREEDY, [[1], [2], [3]])
    tokens, logprobs, after = backend.decode(CONFIG, params, state, torch.tensor([1, 2, 3]), 3, rows)
    assert not any(x.is_inference() for x in (tokens, logprobs, *after.values()))


@pytest.mark.parametrize("vocabulary", [5, 128, 264, 640])
def test_the_lowest_of_equal_scores_is_taken(vocabulary: int, rng: np.random.Generator) -> None:
    scores = torch.tensor(rng.integers(0, 3, (16, vocabulary))).float()
    assert first_best(scores).tolist() == [row.index(max(row)) for row in scores.tolist()]


@pytest.mark.parametrize("cap", [None, 0.5])
def test_log_probabilities_are_those_of_the_capped_logits(cap: float | None, draw, rng: np.random.Generator) -> None:
    params, config = draw(CONFIG), CONFIG.replace(logits_soft_cap=cap)
    state, token = _start(params, rng, (10, 10, 10)), torch.tensor([1, 2, 3])
    rows = SamplingRows.start(GREEDY, [[1], [2], [3]])
    tokens, logprobs, _ = backend.decode(config, params, state, token, 1, rows)
    with torch.no_grad():
        scores, _ = backend.forward(config, params, token[:, None], None, state)
    expected = scores[:, 0].log_softmax(1).gather(1, tokens.long())
    torch.testing.assert_close(logprobs, expected, atol=64 * 2.0**-24, rtol=0.0)


def test_log_probabilities(rng: np.random.Generator) -> None:
    scores = torch.tensor(rng.normal(size=(4, 300)) * 30.0).float()
    tokens = torch.tensor([0, 7, 299, 3])
    expected = scores.double().log_softmax(1).gather(1, tokens[:, None])[:, 0].float()
    # The exponent's argument reaches 200 and the result 200; a few roundings of each.
    torch.testing.assert_close(log_probability(scores.clone(), tokens), expected, atol=4 * 200 * 2.0**-24, rtol=0.0)


def test_bfloat16(draw, rng: np.random.Generator) -> None:
    """One token: a rounded score may change the choice, so states and probabilities are compared, not texts."""
    params = draw(CONFIG, dtype="bfloat16")
    state = _start(params, rng, (10, 10, 10), "bfloat16")
    token = torch.tensor([1, 2, 3])
    rows = SamplingRows.start(GREEDY, [[1], [2], [3]])
    tokens, logprobs, after = backend.decode(CONFIG, params, state, token, 1, rows)
    with torch.no_grad():
        scores, end = backend.forward(CONFIG, params, token[:, None], None, state)
    expected = scores[:, 0].log_softmax(1).gather(1, tokens.long())
    assert logprobs.dtype == torch.float32
    # Three layers, each rounding a few activations of unit size.
    torch.testing.assert_close(logprobs, expected, atol=16 * 2.0**-8, rtol=0.0)
    assert after["layers.0.h"].dtype == torch.float32
    _same_states(after, end, 2.0**-8)


def _same_states(ours: dict, theirs: dict, unit: float) -> None:
    # A few tokens, each through rounded products of a few hundred terms.
    ours, theirs = (backend.dump_state(CONFIG, s) for s in (ours, theirs))
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        error = np.abs(ours[name].astype(np.float64) - value.astype(np.float64)).max()
        assert error <= 64 * unit * max(1.0, np.abs(value.astype(np.float64)).max()), name


def test_in_two_calls(draw, rng: np.random.Generator) -> None:
    params = draw(CONFIG)
    state = _start(params, rng, (10, 4, 0))
    rows = SamplingRows.start(Sampling(seed=11, repetition_penalty=1.5), [[1], [2], [3]])
    whole, _, end = backend.decode(CONFIG, params, state, [1, 2, 3], 9, rows)
    first, _, middle = backend.decode(CONFIG, params, state, [1, 2, 3], 4, rows)
    for column in first.T:
        rows = rows.push(column.numpy())
    rest, _, after = backend.decode(CONFIG, params, middle, first[:, -1], 5, rows)
    assert torch.cat([first, rest], 1).tolist() == whole.tolist()
    assert after["position"].tolist() == end["position"].tolist() == [19, 13, 9]


def test_written_weights_are_seen(draw, rng: np.random.Generator) -> None:
    """What is derived from the weights is made again when one of them is written in place or replaced."""
    params = draw(CONFIG)
    state = _start(params, rng, (10, 10, 10))
    rows = SamplingRows.start(GREEDY, [[1], [2], [3]])
    before = backend.decode(CONFIG, params, state, [1, 2, 3], 4, rows)[1]
    name = "model.layers.0.temporal_block.rg_lru.recurrent_gate_bias"
    params[name].add_(3.0)
    written = backend.decode(CONFIG, params, state, [1, 2, 3], 4, rows)[1]
    replaced = backend.decode(CONFIG, {**params, name: params[name] - 3.0}, state, [1, 2, 3], 4, rows)[1]
    assert not torch.equal(before, written)
    torch.testing.assert_close(before, replaced, atol=1e-4, rtol=0.0)
    kept = len(derived._cache)
    del params
    assert len(derived._cache) == kept - 1


def test_nothing_to_do(draw) -> None:
    params, state = draw(CONFIG), backend.init_state(CONFIG, 2)
    rows = SamplingRows.start(GREEDY, [[1], [2]])
    tokens, logprobs, after = backend.decode(CONFIG, params, state, [1, 2], 0, rows)
    assert tokens.shape == logprobs.shape == (2, 0)
    tokens, logprobs, after = backend.decode(CONFIG, params, state, [1, 2], 3, rows, active=[False, False])
    assert tokens.tolist() == [[-1] * 3] * 2
    assert logprobs.tolist() == [[0.0] * 3] * 2
    assert all(torch.equal(after[name], x) for name, x in state.items())


def test_refusals(draw) -> None:
    rows = SamplingRows.start(GREEDY, [[1]])
    params, state = draw(CONFIG), backend.init_state(CONFIG, 1)
    with pytest.raises(InputError, match="n=-1"):
        backend.decode(CONFIG, params, state, [1], -1, rows)
    with pytest.raises(InputError, match="token id 999"):
        backend.decode(CONFIG, params, state, [999], 1, rows)
    config = presets.preset("mqa-tiny").config.replace(num_layers=1)
    with pytest.raises(InputError, match="capacity=4"):
        backend.decode(config, draw(config), backend.init_state(config, 1, capacity=4), [1], 5, rows)


def test_top_k_keeps_the_lower_ids_of_equals() -> None:
    """Four equal scores, three kept: ids 0, 2 and 3 (1 is worse), never 5."""
    scores = torch.tensor([[1.0, 0.0, 1.0, 1.0, -1.0, 1.0]]).expand(200, 6)
    rows = SamplingRows.start(Sampling(top_k=3), [[]] * 200)
    drawn = Sampler(rows, torch.device("cpu"))(scores, torch.arange(200))
    assert set(drawn.tolist()) == {0, 2, 3}
