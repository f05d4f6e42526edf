"""Laws of the whole model, on the float64 reference: they need no other implementation to compare with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_core import reference
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.layouts.initialise import init_params
from griffin_core.layouts.states import check_state

GRIFFIN = GriffinConfig(
    width=12,
    lru_width=16,
    mlp_width=20,
    num_heads=3,
    head_dim=4,
    gate_blocks=4,
    block_pattern=("recurrent", "recurrent", "attention"),
    num_layers=4,
    attention_window=3,
    vocab_size=13,
)
CONFIGS = {
    "griffin": GRIFFIN,
    "hawk": GRIFFIN.replace(block_pattern=["recurrent"], num_layers=2),
    "global": GRIFFIN.replace(block_pattern=["attention", "recurrent"], num_layers=2, attention_window=None),
    "released": GRIFFIN.replace(logits_soft_cap=2.0, embedding_scale="sqrt_width", tie_embeddings=False, conv_width=3),
}
CAPACITY = 32
# Sums of at most 20 terms, four layers, each layer amplifying by less than ten: far below 10^5 roundings.
TOLERANCE = 1e5 * 2.0**-53


def params_of(name: str) -> dict[str, np.ndarray]:
    """Weights that use every parameter: biases and norms are not zero. Read-only: a law of its own."""
    rng = np.random.default_rng(7)
    params = {n: v + 0.3 * rng.standard_normal(v.shape) for n, v in init_params(CONFIGS[name], 1).items()}
    for value in params.values():
        value.setflags(write=False)
    return params


PARAMS = {name: params_of(name) for name in CONFIGS}
NAMES = st.sampled_from(sorted(CONFIGS))
SEEDS = st.integers(0, 2**16)


def state_of(name: str, batch: int) -> dict[str, np.ndarray]:
    state = reference.init_state(CONFIGS[name], batch, capacity=CAPACITY)
    for value in state.values():
        value.setflags(write=False)
    return state


def run(name: str, tokens: np.ndarray, positions=None, state=None, **options):
    for x in (tokens, positions):
        if x is not None:
            x.setflags(write=False)
    return reference.forward(CONFIGS[name], PARAMS[name], tokens, positions, state, **options)


def draw_tokens(rng: np.random.Generator, batch: int, time: int) -> np.ndarray:
    return rng.integers(0, GRIFFIN.vocab_size, (batch, time))


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def same_state(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        close(found[name], value)


def documents(rng: np.random.Generator, time: int) -> np.ndarray:
    """Positions of one row that restart at random places."""
    positions, p = [], 0
    for _ in range(time):
        positions.append(p)
        p = 0 if rng.random() < 0.3 else p + 1
    return np.array(positions, np.int32)


def pieces(positions: np.ndarray) -> Iterator[slice]:
    starts = [*np.flatnonzero(positions == 0), len(positions)]
    yield from (slice(a, b) for a, b in itertools.pairwise(starts))


@given(NAMES, SEEDS, st.integers(1, 12))
def test_packed_documents_are_separate_documents(name: str, seed: int, time: int) -> None:
    rng = np.random.default_rng(seed)
    tokens, positions = draw_tokens(rng, 1, time), documents(rng, time)
    packed, end = run(name, tokens, positions[None], state_of(name, 1))
    for piece in pieces(positions):
        alone, last = run(name, tokens[:, piece], None, state_of(name, 1))
        close(packed[:, piece], alone)
    same_state(end, last)


@given(NAMES, SEEDS, st.integers(0, 9), st.sampled_from(["any", "right"]))
def test_padding_anywhere_is_no_padding(name: str, seed: int, time: int, padding: str) -> None:
    rng = np.random.default_rng(seed)
    total = 12
    tokens, positions = np.full((2, total), -5), np.full((2, total), -1, np.int32)
    real = [np.sort(rng.choice(total, size=time, replace=False)), np.arange(0)]
    ids, places = draw_tokens(rng, 1, time), documents(rng, time)
    tokens[0, real[0]], positions[0, real[0]] = ids[0], places
    # The reference's operations skip padding anywhere, so that both roads through it must agree.
    found, end = run(name, tokens, positions, state_of(name, 2), padding=padding)
    alone, last = run(name, ids, places[None], state_of(name, 1))
    close(found[0, real[0]], alone[0])
    assert not found[positions < 0].any()
    same_state(reference.take(end, [0]), last)
    same_state(reference.take(end, [1]), state_of(name, 1))


@given(NAMES, SEEDS, st.integers(1, 12), st.data())
def test_prefix_and_continuation_are_the_whole(name: str, seed: int, time: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    cut = data.draw(st.integers(0, time))
    tokens = draw_tokens(rng, 2, time)
    positions = np.stack([documents(rng, time), np.arange(time)]).astype(np.int32)
    whole, end = run(name, tokens, positions, state_of(name, 2))
    first, state = run(name, tokens[:, :cut], positions[:, :cut], state_of(name, 2))
    rest, state = run(name, tokens[:, cut:], positions[:, cut:], state)
    close(np.concatenate([first, rest], axis=1), whole)
    same_state(state, end)
    check_state(CONFIGS[name], {n: value.shape for n, value in state.items()})


@given(NAMES, SEEDS)
def test_one_token_at_a_time_is_all_at_once(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = draw_tokens(rng, 2, 9)
    whole, none = run(name, tokens)
    assert none is None
    state, outputs = state_of(name, 2), []
    for t in range(9):
        y, state = run(name, tokens[:, t : t + 1], None, state)
        outputs.append(y)
    close(np.concatenate(outputs, axis=1), whole)
    np.testing.assert_array_equal(state["position"], [9, 9])


@given(NAMES, SEEDS, st.integers(1, 11))
def test_the_future_does_not_touch_the_past(name: str, seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = draw_tokens(rng, 1, 12)
    changed = tokens.copy()
    changed[:, cut:] = (changed[:, cut:] + 1) % GRIFFIN.vocab_size
    before, after = run(name, tokens)[0], run(name, changed)[0]
    np.testing.assert_array_equal(before[:, :cut], after[:, :cut])
    assert not np.array_equal(before[:, cut], after[:, cut])


@given(NAMES, SEEDS)
def test_rows_are_independent(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = draw_tokens(rng, 3, 7)
    together, end = run(name, tokens, None, state_of(name, 3))
    for row in range(3):
        alone, last = run(name, tokens[row : row + 1], None, state_of(name, 1))
        close(together[row], alone[0])
        same_state(reference.take(end, [row]), last)
    other = tokens.copy()
    other[1] = (other[1] + 1) % GRIFFIN.vocab_size
    np.testing.assert_array_equal(run(name, other)[0][[0, 2]], run(name, tokens)[0][[0, 2]])


@given(NAMES, SEEDS)
def test_states_can_be_gathered_and_replaced(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens, following = draw_tokens(rng, 2, 6), draw_tokens(rng, 3, 2)
    _, state = run(name, tokens, None, state_of(name, 2))
    beams = reference.take(state, [1, 0, 1])
    y, after = run(name, following, None, beams)
    for row, source in enumerate([1, 0, 1]):
        alone, last = run(name, following[row : row + 1], None, reference.take(state, [source]))
        close(y[row], alone[0])
        same_state(reference.take(after, [row]), last)
    mixed = reference.put(state, [0], reference.take(after, [2]))
    same_state(reference.take(mixed, [0]), reference.take(after, [2]))
    same_state(reference.take(mixed, [1]), reference.take(state, [1]))


def test_illegal_rows_are_refused() -> None:
    state = state_of("griffin", 2)
    for rows in ([2], [-1], [0, 5]):
        with pytest.raises(InputError, match=rf"row {rows[-1]} does not exist; the state has rows 0\.\.1"):
            reference.take(state, rows)
    with pytest.raises(InputError, match=r"rows \[1, 1\] name a row twice"):
        reference.put(state, [1, 1], state)
    with pytest.raises(InputError, match=r"position of the rows to put is \(2,\), expected \(1,\)"):
        reference.put(state, [1], state)


def test_a_full_global_state_refuses_more() -> None:
    tokens = np.zeros((1, CAPACITY), int)
    _, state = run("global", tokens, None, state_of("global", 1))
    with pytest.raises(InputError, match=f"would hold {CAPACITY + 1} tokens, .* capacity={CAPACITY}"):
        run("global", tokens[:, :1], None, state)
    y, _ = run("global", tokens[:, :1], np.zeros((1, 1), np.int32), state)
    close(y, run("global", tokens[:, :1])[0])


LAWS = [law for name, law in sorted(globals().items()) if hasattr(law, "hypothesis")]


@pytest.mark.prove
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__.removeprefix("test_"))
def test_thoroughly(law: Callable[[], None]) -> None:
    """The same laws, where the profile draws many cases."""
    assert len(LAWS) == 7
    law()
