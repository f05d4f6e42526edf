"""The whole model on the numpy backend: dtypes, states, capture, decode."""

from __future__ import annotations

import numpy as np
import pytest

from griffin_core import numpy_backend as backend
from griffin_core import reference
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError, KernelNotSupported
from griffin_core.layouts.initialise import init_params
from griffin_core.sampling import Sampling, SamplingRows
from griffin_core.shapes import DTYPES

CONFIG = GriffinConfig(
    width=16,
    lru_width=24,
    mlp_width=32,
    num_heads=2,
    head_dim=8,
    gate_blocks=3,
    block_pattern=("recurrent", "recurrent", "attention"),
    num_layers=3,
    attention_window=4,
    vocab_size=23,
)
RNG = np.random.default_rng(6)
CANONICAL = {n: v + 0.2 * RNG.standard_normal(v.shape).astype(np.float32) for n, v in init_params(CONFIG, 0).items()}
TOKENS = RNG.integers(0, 23, (2, 7))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", None])
def test_outputs_and_state_dtypes(dtype: str | None) -> None:
    params = backend.load_params(CONFIG, CANONICAL, dtype)
    compute = dtype or "float32"
    assert {value.dtype.name for name, value in params.items() if "recurrent_param" not in name} == {compute}
    assert {value.dtype.name for name, value in params.items() if "recurrent_param" in name} == {"float32"}
    x, none = backend.hidden(CONFIG, params, TOKENS)
    assert none is None
    assert x.dtype == DTYPES[compute]
    scores, state = backend.forward(CONFIG, params, TOKENS, state=backend.init_state(CONFIG, 2, dtype=dtype))
    assert scores.dtype == np.float32
    kinds = {name.rpartition(".")[2]: value.dtype.name for name, value in state.items()}
    assert kinds == {"position": "int32", "h": "float32", "conv": compute, "k": compute, "v": compute}
    np.testing.assert_array_equal(backend.logits(CONFIG, params, x), scores)
    exact, _ = reference.forward(CONFIG, params, TOKENS)
    np.testing.assert_allclose(scores, exact, atol=1e-6 if compute == "float32" else 0.05)


def test_compute_dtype_is_a_call_option() -> None:
    params = backend.load_params(CONFIG, CANONICAL)
    x, _ = backend.hidden(CONFIG, params, TOKENS, compute_dtype="bfloat16")
    assert x.dtype == DTYPES["bfloat16"]
    np.testing.assert_array_equal(x, backend.hidden(CONFIG, params, TOKENS)[0].astype(DTYPES["bfloat16"]))


def test_parameters_and_states_round_trip() -> None:
    params = backend.load_params(CONFIG, CANONICAL)
    dumped = backend.dump_params(CONFIG, params)
    assert list(dumped) == list(CANONICAL)
    for name, value in CANONICAL.items():
        np.testing.assert_array_equal(dumped[name], value)
        assert dumped[name] is not params[name]
    _, state = backend.forward(CONFIG, params, TOKENS, state=backend.init_state(CONFIG, 2))
    again = backend.load_state(CONFIG, backend.dump_state(CONFIG, state), "bfloat16")
    assert again["layers.0.conv"].dtype == DTYPES["bfloat16"]
    assert again["layers.0.h"].dtype == np.float32
    np.testing.assert_array_equal(again["layers.0.h"], state["layers.0.h"])
    kept = backend.load_state(CONFIG, again)
    assert kept["layers.0.conv"].dtype == DTYPES["bfloat16"]


def test_nothing_that_goes_in_is_written() -> None:
    params = backend.load_params(CONFIG, CANONICAL)
    state = backend.init_state(CONFIG, 2)
    tokens = TOKENS.copy()
    for value in (*params.values(), *state.values(), tokens):
        value.setflags(write=False)
    _, after = backend.forward(CONFIG, params, tokens, state=state)
    backend.put(after, [1], backend.take(state, [0]))
    backend.dump_state(CONFIG, dict(state.items()))
    rows = SamplingRows.start(Sampling(), [[1], [2]])
    backend.decode(CONFIG, params, state, tokens[:, -1], 2, rows)
    assert not any(value.any() for value in state.values())


def test_capture_names_shapes_and_padding() -> None:
    params, capture = backend.load_params(CONFIG, CANONICAL), {}
    positions = np.array([[-1, 0, 1, -1, 2, 3, 4], [0, 1, 2, 3, 0, 1, 2]], np.int32)
    x, _ = backend.hidden(CONFIG, params, TOKENS, positions, capture=capture)
    for name in ("log_a", "input_gate", "recurrent_gate", "h", "conv", "a"):
        value = capture[f"layers.0.{name}"]
        assert value.shape == (2, 7, 24)
        assert value.dtype == np.float32
    assert not capture["layers.0.h"][positions < 0].any()
    np.testing.assert_allclose(np.where(positions[..., None] < 0, 0, capture["final_norm"]), x)
    plain, _ = backend.hidden(CONFIG, params, TOKENS, positions)
    np.testing.assert_array_equal(plain, x)
    with_loop: dict = {}
    backend.hidden(CONFIG, params, TOKENS, positions, kernel="loop", capture=with_loop)
    assert set(with_loop) == set(capture)
    np.testing.assert_allclose(with_loop["layers.0.h"], capture["layers.0.h"], atol=1e-5)


def test_a_named_kernel_runs_inside_the_model_or_raises() -> None:
    params = backend.load_params(CONFIG, CANONICAL)
    one, two = (backend.hidden(CONFIG, params, TOKENS, kernel=kernel)[0] for kernel in ("loop", "reference"))
    assert not np.array_equal(one, two)
    np.testing.assert_allclose(one, two, atol=1e-5)
    with pytest.raises(KernelNotSupported, match="numpy has no kernel 'pallas'"):
        backend.hidden(CONFIG, params, TOKENS, kernel="pallas")


def test_values_are_checked() -> None:
    params = backend.load_params(CONFIG, CANONICAL)
    with pytest.raises(InputError, match=r"token id 23 at row 0, column 0 is outside the vocabulary 0\.\.22"):
        backend.forward(CONFIG, params, np.array([[23]]))
    with pytest.raises(InputError, match="position 5 in row 0"):
        backend.forward(CONFIG, params, TOKENS[:1, :1], np.array([[5]], np.int32))
    with pytest.raises(InputError, match="padding='left'; expected 'any'"):
        backend.forward(CONFIG, params, TOKENS, padding="left")
    with pytest.raises(InputError, match="row 0 has padding before a token, but padding='right' was promised"):
        backend.forward(CONFIG, params, TOKENS[:1, :3], np.array([[0, -1, 1]], np.int32), padding="right")


def prefilled(kind: str = "float32") -> tuple[dict, dict]:
    params = backend.load_params(CONFIG, CANONICAL, kind)
    _, state = backend.forward(CONFIG, params, TOKENS[:, :-1], state=backend.init_state(CONFIG, 2, dtype=kind))
    return params, state


@pytest.mark.parametrize(
    "settings",
    [Sampling(temperature=0), Sampling(seed=3), Sampling(top_k=5, repetition_penalty=1.5, repetition_window=3)],
)
def test_decoding_many_is_decoding_one_by_one(settings: Sampling) -> None:
    params, state = prefilled()
    rows = SamplingRows.start(settings, TOKENS.tolist())
    tokens, logprobs, end = backend.decode(CONFIG, params, state, TOKENS[:, -1], 6, rows)
    assert (tokens.dtype, logprobs.dtype, tokens.shape) == (np.int32, np.float32, (2, 6))
    last, after = TOKENS[:, -1], state
    for i in range(6):
        one, logprob, after = backend.decode(CONFIG, params, after, last, 1, rows)
        np.testing.assert_array_equal(one[:, 0], tokens[:, i])
        np.testing.assert_array_equal(logprob[:, 0], logprobs[:, i])
        last, rows = one[:, 0], rows.push(one[:, 0])
    for name, value in end.items():
        np.testing.assert_array_equal(value, after[name])
    np.testing.assert_array_equal(end["position"], 6 + 6)


def test_greedy_decoding_follows_the_logits_of_the_whole_text() -> None:
    params, state = prefilled()
    tokens, logprobs, _ = backend.decode(
        CONFIG, params, state, TOKENS[:, -1], 5, SamplingRows.start(Sampling(temperature=0), [[], []])
    )
    text = np.concatenate([TOKENS, tokens], axis=1)
    scores = reference.forward(CONFIG, params, text)[0][:, 6:-1]
    np.testing.assert_array_equal(scores.argmax(-1), tokens)
    expected = scores.max(-1) - np.log(np.exp(scores).sum(-1))
    np.testing.assert_allclose(logprobs, expected, atol=1e-5)


def test_inactive_rows_rest() -> None:
    params, state = prefilled()
    rows = SamplingRows.start(Sampling(seed=1), TOKENS.tolist())
    both, _, _ = backend.decode(CONFIG, params, state, TOKENS[:, -1], 4, rows)
    tokens, logprobs, end = backend.decode(
        CONFIG, params, state, TOKENS[:, -1], 4, rows, active=np.array([True, False])
    )
    np.testing.assert_array_equal(tokens, [both[0], [-1] * 4])
    np.testing.assert_array_equal(logprobs[1], 0)
    for name, value in backend.take(end, [1]).items():
        np.testing.assert_array_equal(value, state[name][1:])
    np.testing.assert_array_equal(end["position"], [10, 6])


def test_decoding_nothing_and_illegal_counts() -> None:
    params, state = prefilled()
    rows = SamplingRows.start(Sampling(), [[], []])
    tokens, logprobs, end = backend.decode(CONFIG, params, state, TOKENS[:, -1], 0, rows)
    assert tokens.shape == logprobs.shape == (2, 0)
    np.testing.assert_array_equal(end["layers.0.h"], state["layers.0.h"])
    for n, token in ((-1, TOKENS[:, -1]), (1, TOKENS[:1, -1])):
        with pytest.raises(InputError, match=rf"decode of n={n} tokens .*; expected n >= 0 and \(2,\)"):
            backend.decode(CONFIG, params, state, token, n, rows)
