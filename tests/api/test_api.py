"""The front door: the lines of the README work on every backend, and wrong use is refused in one line."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import griffin_core as griffin
from griffin_core import errors, registry
from griffin_core.checkpoints import native
from griffin_core.layouts.initialise import init_params
from griffin_core.presets import PRESETS

BACKENDS = [name for name in registry.backend_names() if registry.installed(name) is None]
TINY = griffin.GriffinConfig(
    width=16,
    lru_width=24,
    mlp_width=32,
    num_heads=2,
    head_dim=8,
    gate_blocks=3,
    block_pattern=("recurrent", "attention"),
    num_layers=2,
    attention_window=9,
    vocab_size=264,
)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    griffin.init(TINY, seed=1, backend="numpy").save(tmp_path / "model")
    return tmp_path / "model"


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for the order of sums: products of length 16 to 32 through two layers, in float32 roundoffs."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 * 32 * 2.0**-24 * np.abs(expected).max())


def test_every_public_name_is_there() -> None:
    for name in griffin.__all__:
        assert getattr(griffin, name) is not None
    assert set(griffin.__all__) <= set(dir(griffin))
    public = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, Exception | Warning)}
    assert public <= set(griffin.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        griffin.nothing  # noqa: B018


def test_importing_is_light() -> None:
    heavy = ("numpy", "torch", "jax", "keras", "cyclopts", "rich", "hypothesis")
    code = f"import sys, griffin_core; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_init_is_the_initialiser(backend: str) -> None:
    model = griffin.init(TINY, seed=3, backend=backend)
    expected = init_params(TINY, 3)
    for name, value in model.dump_params().items():
        np.testing.assert_array_equal(value, expected[name])
    assert (model.backend, model.dtype, model.config, model.source) == (backend, "float32", TINY, None)


def test_a_preset_brings_its_own_init_and_tokenizer() -> None:
    released = griffin.init("recurrentgemma-tiny", seed=0, backend="numpy")
    name = "model.layers.0.temporal_block.rg_lru.recurrent_param"
    expected = init_params(PRESETS["recurrentgemma-tiny"].config, 0, "released")[name]
    np.testing.assert_array_equal(released.dump_params()[name], expected)
    assert released.tokenizer is not None
    assert griffin.init(TINY.replace(vocab_size=300), backend="numpy").tokenizer is None


def test_saved_and_loaded_is_the_same_model(backend: str, tmp_path: Path) -> None:
    model = griffin.init(TINY, seed=2, backend=backend)
    model.save(tmp_path / "m", max_shard_size="8kB")
    again = griffin.load(tmp_path / "m", backend=backend)
    assert again.digest == model.digest == native.read(tmp_path / "m").digest
    assert again.source == tmp_path / "m"
    np.testing.assert_array_equal(again.forward([1, 2, 3])[0], model.forward([1, 2, 3])[0])
    with pytest.raises(griffin.CheckpointError, match="already holds a checkpoint"):
        again.save(tmp_path / "m")
    again.save(tmp_path / "m", overwrite=True)


def test_the_checkpoint_decides_the_dtype_unless_told(saved: Path, backend: str, tmp_path: Path) -> None:
    griffin.convert(saved, tmp_path / "narrow", dtype="bfloat16")
    narrow = griffin.load(tmp_path / "narrow", backend=backend)
    assert narrow.dtype == "bfloat16"
    wide = griffin.load(tmp_path / "narrow", backend=backend, dtype="float32")
    assert {value.dtype.name for value in wide.dump_params().values()} == {"float32"}
    assert wide.digest == narrow.digest


def test_forward_takes_lists_and_gives_arrays(backend: str) -> None:
    model = griffin.init(TINY, backend=backend)
    logits, state = model.forward([5, 6, 7])
    assert (type(logits), logits.shape, logits.dtype, state) == (np.ndarray, (1, 3, 264), np.dtype(np.float32), None)
    packed, _ = model.forward([[5, 6, 5, 6, 7, 0]], positions=[[0, 1, 0, 1, 2, -1]])
    assert_close(packed[0, 2:5], logits[0])
    assert not packed[0, 5].any()


def test_a_state_continues_and_travels_between_backends(backend: str) -> None:
    one, two = griffin.init(TINY, backend="numpy"), griffin.init(TINY, backend=backend)
    whole, _ = one.forward([[1, 2, 3, 4, 5]])
    _, state = one.forward([[1, 2, 3]], state=one.init_state())
    rest, state = two.forward([[4, 5]], state=two.load_state(one.dump_state(state)))
    assert_close(rest, whole[:, 3:])
    assert two.dump_state(state)["position"].tolist() == [5]
    with pytest.raises(griffin.InputError, match=r"position 3 .* expected 5"):
        two.forward([[4]], positions=[[3]], state=state)


@pytest.mark.parametrize(
    ("tokens", "positions", "words"),
    [
        ([], None, "expected integers"),
        ([[]], None, "expected integers"),
        ([0.5], None, "tokens are float64"),
        ("text", None, "expected integers"),
        ([[1, 2], [3]], None, "tokens have rows of unequal length; pad them"),
        ([264], None, r"token id 264 at row 0, column 0 is outside the vocabulary 0\.\.263"),
        ([-1], None, "token id -1"),
        ([2**40], None, "expected 32-bit integers"),
        ([1, 2, 3], [0, 1, 0, 1], "positions are"),
        ([1, 2, 3], [0, 2, 3], "position 2 in row 0"),
        ([1, 2, 3], [0, 1, 1], "position 1 in row 0"),
        ([1, 2], [0, -2], "position -2 in row 0"),
    ],
)
def test_bad_tokens_and_positions_are_refused(tokens: Any, positions: Any, words: str) -> None:
    model = griffin.init(TINY, backend="numpy")
    with pytest.raises(griffin.InputError, match=words) as caught:
        model.forward(tokens, positions)
    assert "\n" not in str(caught.value)


def test_generating_from_random_weights_warns_once(backend: str) -> None:
    model = griffin.init(TINY, backend=backend)
    with pytest.warns(griffin.RandomWeightsWarning, match="these weights are random"):
        text = model.generate("a", max_new_tokens=3, temperature=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.generate("a", max_new_tokens=3, temperature=0) == text
        assert "".join(model.stream("a", max_new_tokens=3, temperature=0)) == text
        assert model.generate(["a", "b"], max_new_tokens=3, temperature=0)[0] == text
        assert model.generate([258, 97], max_new_tokens=3, temperature=0) == text


def test_loaded_weights_do_not_warn(saved: Path, backend: str) -> None:
    model = griffin.load(saved, backend=backend)
    assert isinstance(model.generate("a", max_new_tokens=2, seed=4), str)


def test_wrong_generation_settings_are_refused(saved: Path) -> None:
    model = griffin.load(saved, backend="numpy")
    with pytest.raises(
        griffin.ConfigError, match="unknown generation setting 'temprature'; did you mean 'temperature'"
    ):
        model.generate("a", temprature=0.5)
    with pytest.raises(griffin.ConfigError, match="top_p=0"):
        model.generate("a", top_p=0)
    with pytest.raises(griffin.InputError, match="zero tokens"):
        model.generate("")
    with pytest.raises(griffin.InputError, match="-1"):
        model.generate("a", max_new_tokens=-1)
    with pytest.raises(griffin.InputError, match=r"token id 264, outside the vocabulary"):
        model.generate([264])
    nameless = griffin.init(TINY.replace(vocab_size=300), backend="numpy")
    with pytest.raises(griffin.InputError, match="has no tokenizer"):
        nameless.generate([1])


def test_score_is_the_log_probability_of_the_text(saved: Path, backend: str) -> None:
    model = griffin.load(saved, backend=backend)
    ids = [258, *b"abc", 257]
    logits = model.forward([ids[:-1]])[0][0].astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -sum(logprobs[i, ids[i + 1]] for i in range(4))
    found = model.score("abc")
    assert found.nats == pytest.approx(expected, rel=1e-6)
    assert found.bits_per_byte == pytest.approx(expected / np.log(2) / 3, rel=1e-6)
    with pytest.raises(griffin.InputError, match="text is empty"):
        model.score("")


def test_a_preset_name_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(griffin.ConfigError, match=r"'griffin-tiny' is a preset.*griffin_core\.init\('griffin-tiny'\)"):
        griffin.load("griffin-tiny", backend="numpy")
    griffin.init(TINY, backend="numpy").save("griffin-tiny")
    assert griffin.load("griffin-tiny", backend="numpy").config == TINY


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda path: griffin.load(path / "x"), griffin.CheckpointError, "no such file or directory"),
        (lambda path: griffin.load(path), griffin.CheckpointError, "is no checkpoint"),
        (lambda path: griffin.load(path, backend="tensorflow"), griffin.BackendError, "unknown backend 'tensorflow'"),
        (lambda path: griffin.load(path, kernel="warp"), griffin.KernelNotSupported, "has no kernel 'warp'"),
        (lambda path: griffin.load(path, dtype="float8"), griffin.ConfigError, "unknown dtype 'float8'"),
        (lambda path: griffin.init("griffin-tyni"), griffin.ConfigError, "did you mean 'griffin-tiny'"),
        (lambda path: griffin.init("griffin-tiny", init="zero"), griffin.ConfigError, "unknown init 'zero'"),
        (lambda path: griffin.init("griffin-tiny", seed=-1), griffin.ConfigError, "seed=-1"),
        (lambda path: TINY.replace(widht=3), griffin.ConfigError, "unknown config key 'widht'; did you mean 'width'"),
        (lambda path: griffin.convert(path, path / "x", to="onnx"), griffin.ConfigError, "unknown format 'onnx'"),
        (lambda path: griffin.verify("no.such:thing"), griffin.InputError, "no.such"),
    ],
)
def test_wrong_use_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, error: type[Exception], words: str
) -> None:
    monkeypatch.setenv("GRIFFIN_BACKEND", "numpy")
    with pytest.raises(error, match=words) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_environment_chooses(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIFFIN_BACKEND", "numpy")
    assert griffin.load(saved).backend == "numpy"
    monkeypatch.setenv("GRIFFIN_BACKEND", "nunpy")
    with pytest.raises(griffin.BackendError, match="unknown backend 'nunpy'; did you mean 'numpy'"):
        griffin.load(saved)
    with griffin.use_backend("numpy"):
        assert griffin.load(saved).backend == "numpy"
    assert griffin.load(saved, backend="numpy").backend == "numpy"
    monkeypatch.setenv("GRIFFIN_KERNEL", "none")
    with pytest.raises(griffin.KernelNotSupported, match="numpy has no kernel 'none'"):
        griffin.load(saved, backend="numpy")
    monkeypatch.setenv("GRIFFIN_KERNEL", "auto")
    monkeypatch.setenv("GRIFFIN_BACKAND", "numpy")
    with pytest.warns(UserWarning, match="GRIFFIN_BACKAND is set but not read .* did you mean 'GRIFFIN_BACKEND'"):
        griffin.load(saved, backend="numpy")


def test_nan_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    model = griffin.load(saved, backend="numpy")
    model.params = {**model.params, "model.final_norm.weight": np.full(16, np.nan, np.float32)}
    with pytest.raises(griffin.CheckpointError, match=r"weight model\.final_norm\.weight has values that are NaN"):
        model.save(tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_a_state_of_another_model_is_refused(backend: str) -> None:
    one = griffin.init(TINY, backend=backend)
    other = griffin.init(TINY.replace(num_layers=4), backend=backend)
    with pytest.raises(griffin.StateMismatch, match="it belongs to another config"):
        other.load_state(one.dump_state(one.init_state()))
