"""Wrong use of the front door is refused in one line, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import griffin_core as griffin


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
def test_bad_tokens_and_positions_are_refused(
    tokens: Any, positions: Any, words: str, tiny: griffin.GriffinConfig
) -> None:
    model = griffin.init(tiny, backend="numpy")
    with pytest.raises(griffin.InputError, match=words) as caught:
        model.forward(tokens, positions)
    assert "\n" not in str(caught.value)


def test_wrong_generation_settings_are_refused(saved: Path, tiny: griffin.GriffinConfig) -> None:
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
    nameless = griffin.init(tiny.replace(vocab_size=300), backend="numpy")
    with pytest.raises(griffin.InputError, match="has no tokenizer"):
        nameless.generate([1])


def test_a_preset_name_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: griffin.GriffinConfig
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(griffin.ConfigError, match=r"'griffin-tiny' is a preset.*griffin_core\.init\('griffin-tiny'\)"):
        griffin.load("griffin-tiny", backend="numpy")
    griffin.init(tiny, backend="numpy").save("griffin-tiny")
    assert griffin.load("griffin-tiny", backend="numpy").config == tiny


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
        (
            lambda path: griffin.preset("griffin-tiny").config.replace(widht=3),
            griffin.ConfigError,
            "unknown config key 'widht'; did you mean 'width'",
        ),
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


def test_nan_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    model = griffin.load(saved, backend="numpy")
    model.params = {**model.params, "model.final_norm.weight": np.full(16, np.nan, np.float32)}
    with pytest.raises(griffin.CheckpointError, match=r"weight model\.final_norm\.weight has values that are NaN"):
        model.save(tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_a_state_of_another_model_is_refused(backend: str, tiny: griffin.GriffinConfig) -> None:
    one = griffin.init(tiny, backend=backend)
    other = griffin.init(tiny.replace(num_layers=4), backend=backend)
    with pytest.raises(griffin.StateMismatch, match="it belongs to another config"):
        other.load_state(one.dump_state(one.init_state()))
