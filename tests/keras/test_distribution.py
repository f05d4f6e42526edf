"""A model on several devices is the model on one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

import griffin_core_keras as backend
from griffin_core.config import GriffinConfig
from griffin_core.errors import ConfigError
from griffin_core.presets import preset
from griffin_core.shapes import Array

if backend.ENGINE != "jax":
    pytest.skip("distributions are for the jax engine", allow_module_level=True)


@pytest.fixture(autouse=True)
def _no_distribution_afterwards() -> Iterator[None]:
    yield
    keras.distribution.set_distribution(None)


@pytest.fixture
def devices() -> list[str]:
    found = keras.distribution.list_devices()
    assert len(found) >= 4, "the tests start JAX with several host devices"
    return found[:4]


def losses(config: GriffinConfig, tokens: Array) -> tuple[list[float], Any]:
    model = backend.GriffinCausalLM(config)
    model.compile(backend.AdamW(1e-2))
    return model.fit(tokens, np.roll(tokens, -1, 1), epochs=3, batch_size=4, verbose=0).history["loss"], model


def test_fit_on_rows_and_width(devices: list[str], rng: np.random.Generator) -> None:
    config = preset("griffin-tiny").config.replace(num_layers=3)
    tokens = rng.integers(0, config.vocab_size, (4, 24)).astype(np.int32)
    alone, _ = losses(config, tokens)
    keras.distribution.set_distribution(backend.model_parallel(config, tensor=2, devices=devices))
    together, model = losses(config, tokens)
    assert together == pytest.approx(alone, rel=1e-5)
    spec = {v.path: tuple(v.value.sharding.spec) for v in model.variables}
    assert spec["layer_0/temporal_block/linear_x/kernel"] == ("fsdp", "tensor")
    assert spec["layer_0/temporal_block/linear_out/kernel"] == ("tensor", "fsdp")
    assert spec["layer_0/temporal_block/rg_lru/recurrent_param"] == ("tensor",)
    assert spec["layer_2/temporal_block/q_proj/kernel"] == ("fsdp", "tensor")
    moment = model.optimizer.first[[v.path for v in model.trainable_variables].index("embedding/embeddings")]
    assert moment.value.sharding.spec[0] == "tensor"


def test_every_variable_has_a_layout(devices: list[str], config: GriffinConfig) -> None:
    untied = config.replace(tie_embeddings=False)
    layout = backend.model_parallel(untied, tensor=2, devices=devices)._layout_map
    for variable in backend.GriffinCausalLM(untied).variables:
        assert layout[variable.path] is not None, variable.path


def test_wrong_sizes(devices: list[str], config: GriffinConfig) -> None:
    with pytest.raises(ConfigError, match="data=None x tensor=3 for 4 devices"):
        backend.model_parallel(config, tensor=3, devices=devices)
    with pytest.raises(ConfigError, match="tensor=4"):
        backend.model_parallel(config, tensor=4, devices=devices)
