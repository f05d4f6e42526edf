"""The front door: the lines of the README work on every backend, and wrong use is refused in one line."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import griffin_core as griffin
from griffin_core import errors
from griffin_core.checkpoints import native
from griffin_core.layouts.initialise import init_params
from griffin_core.presets import PRESETS


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


def test_init_is_the_initialiser(backend: str, tiny: griffin.GriffinConfig) -> None:
    model = griffin.init(tiny, seed=3, backend=backend)
    expected = init_params(tiny, 3)
    for name, value in model.dump_params().items():
        np.testing.assert_array_equal(value, expected[name])
    assert (model.backend, model.dtype, model.config, model.source) == (backend, "float32", tiny, None)


def test_a_preset_brings_its_own_init_and_tokenizer(tiny: griffin.GriffinConfig) -> None:
    released = griffin.init("recurrentgemma-tiny", seed=0, backend="numpy")
    name = "model.layers.0.temporal_block.rg_lru.recurrent_param"
    expected = init_params(PRESETS["recurrentgemma-tiny"].config, 0, "released")[name]
    np.testing.assert_array_equal(released.dump_params()[name], expected)
    assert released.tokenizer is not None
    assert griffin.init(tiny.replace(vocab_size=300), backend="numpy").tokenizer is None


def test_saved_and_loaded_is_the_same_model(backend: str, tmp_path: Path, tiny: griffin.GriffinConfig) -> None:
    model = griffin.init(tiny, seed=2, backend=backend)
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


def test_forward_takes_lists_and_gives_arrays(backend: str, tiny: griffin.GriffinConfig) -> None:
    model = griffin.init(tiny, backend=backend)
    logits, state = model.forward([5, 6, 7])
    assert (type(logits), logits.shape, logits.dtype, state) == (np.ndarray, (1, 3, 264), np.dtype(np.float32), None)
    packed, _ = model.forward([[5, 6, 5, 6, 7, 0]], positions=[[0, 1, 0, 1, 2, -1]])
    assert_close(packed[0, 2:5], logits[0])
    assert not packed[0, 5].any()


def test_a_state_continues_and_travels_between_backends(backend: str, tiny: griffin.GriffinConfig) -> None:
    one, two = griffin.init(tiny, backend="numpy"), griffin.init(tiny, backend=backend)
    whole, _ = one.forward([[1, 2, 3, 4, 5]])
    _, state = one.forward([[1, 2, 3]], state=one.init_state())
    rest, state = two.forward([[4, 5]], state=two.load_state(one.dump_state(state)))
    assert_close(rest, whole[:, 3:])
    assert two.dump_state(state)["position"].tolist() == [5]
    with pytest.raises(griffin.InputError, match=r"position 3 .* expected 5"):
        two.forward([[4]], positions=[[3]], state=state)


def test_generating_from_random_weights_warns_once(backend: str, tiny: griffin.GriffinConfig) -> None:
    model = griffin.init(tiny, backend=backend)
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
