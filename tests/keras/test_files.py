"""Keras loads what the converter writes, and the converter reads what Keras saves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from griffin_core.api import packaged_checkpoint
from griffin_core.checkpoints import native
from griffin_core.checkpoints.convert import convert
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, CheckpointMismatch
from griffin_core.layouts.initialise import init_params
from griffin_core.layouts.params import param_table
from griffin_core.shapes import DTYPES, Array

pytest.importorskip("h5py")
GriffinCausalLM = pytest.importorskip("griffin_core_keras.causal_lm").GriffinCausalLM  # before Keras: it chooses
keras = pytest.importorskip("keras")
dump = pytest.importorskip("griffin_core_keras.variables").dump

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras itself

CONFIG = GriffinConfig(
    width=16,
    lru_width=24,
    mlp_width=20,
    num_heads=2,
    head_dim=8,
    gate_blocks=3,
    block_pattern=("recurrent", "attention"),
    num_layers=3,
    attention_window=5,
    vocab_size=30,
    logits_soft_cap=30.0,
    embedding_scale="sqrt_width",
)
TIED = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])


def weights(config: GriffinConfig, dtype: str) -> dict[str, Array]:
    rows = {row.name: row for row in param_table(config)}
    return {n: v.astype(DTYPES["float32" if rows[n].float32 else dtype]) for n, v in init_params(config, 0).items()}


def assert_same(found: dict[str, Any], expected: dict[str, Array]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert np.asarray(found[name]).dtype == value.dtype, name
        assert np.ascontiguousarray(found[name]).tobytes() == value.tobytes(), name


@pytest.fixture
def source(tmp_path: Path) -> Callable[[bool, str], GriffinConfig]:
    """Write a native checkpoint and the same as a Keras file; give the config."""

    def write(tied: bool, dtype: str) -> GriffinConfig:
        config = CONFIG.replace(tie_embeddings=tied)
        native.save(tmp_path / "native", config, weights(config, dtype))
        convert(tmp_path / "native", tmp_path / "keras", to="keras")
        return config

    return write


@TIED
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_keras_loads_what_is_written(
    tmp_path: Path, source: Callable[[bool, str], GriffinConfig], tied: bool, dtype: str
) -> None:
    config = source(tied, dtype)
    model = keras.models.load_model(tmp_path / "keras/model.keras")
    assert (type(model), model.config, model.dtype_policy.name) == (GriffinCausalLM, config, dtype)
    assert_same(dump(model), weights(config, dtype))
    fresh = GriffinCausalLM(config, seed=1, dtype=dtype)
    fresh.load_weights(tmp_path / "keras/model.keras")
    assert_same(dump(fresh), weights(config, dtype))


@TIED
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_keras_saves_is_read(tmp_path: Path, tied: bool, dtype: str) -> None:
    """Its optimiser's state and its compile config too, which are left alone."""
    config = CONFIG.replace(tie_embeddings=tied)
    model = GriffinCausalLM(config, seed=1, dtype=dtype)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    keras.saving.save_model(model, tmp_path / "unpacked", zipped=False)
    expected = dump(model)
    for name, given in (("m.keras", None), ("m.weights.h5", config), ("unpacked", None)):
        read = open_checkpoint(tmp_path / name, config=given)
        assert read.config == config
        assert_same(dict(read.params), expected)
    convert(tmp_path / "m.keras", tmp_path / "native")
    assert_same(dict(native.read(tmp_path / "native").params), expected)
    with pytest.raises(CheckpointMismatch, match="no released model has these shapes"):
        open_checkpoint(tmp_path / "m.weights.h5")


def test_adapters_are_merged_and_quantised_weights_refused(tmp_path: Path) -> None:
    model = GriffinCausalLM(CONFIG, seed=1)
    model.enable_lora(2)
    model.save(tmp_path / "adapted.keras")
    assert_same(dict(open_checkpoint(tmp_path / "adapted.keras").params), dump(model))
    model = GriffinCausalLM(CONFIG, seed=1)
    model.quantize("int8")
    model.save(tmp_path / "narrow.keras")
    with pytest.raises(CheckpointError, match=r"narrow\.keras: tensor 'layer_.*' is int8, quantised; save it before"):
        open_checkpoint(tmp_path / "narrow.keras")


def test_there_and_back_through_keras(tmp_path: Path, source: Callable[[bool, str], GriffinConfig]) -> None:
    config = source(True, "bfloat16")
    keras.models.load_model(tmp_path / "keras/model.keras").save(tmp_path / "again.keras")
    read = open_checkpoint(tmp_path / "again.keras")
    assert (read.config, read.digest) == (config, native.read(tmp_path / "native").digest)


def test_a_tokenizer_travels_in_the_archive(tmp_path: Path) -> None:
    source = packaged_checkpoint()
    GriffinCausalLM.from_checkpoint(source).save(tmp_path / "m.keras")
    convert(tmp_path / "m.keras", tmp_path / "native")
    names = ["tokenizer.json", *(path.name for path in source.glob("*.safetensors"))]
    assert len(names) > 1
    for name in names:
        assert (tmp_path / "native" / name).read_bytes() == (source / name).read_bytes()
