"""Shared by the Keras tests, which run on the engine of the process: a tiny config, models with all weights drawn."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("keras") is None:
    pytest.skip("keras is not installed", allow_module_level=True)

import keras

import griffin_core_keras as backend  # before Keras: it settles the engine
from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import param_table
from griffin_core.shapes import Array


@pytest.fixture(autouse=True)
def _clean_keras() -> Iterator[None]:
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def config() -> GriffinConfig:
    return GriffinConfig(
        width=16,
        lru_width=24,
        mlp_width=32,
        num_heads=2,
        head_dim=8,
        gate_blocks=4,
        block_pattern=("recurrent", "attention"),
        num_layers=3,
        attention_window=5,
        vocab_size=40,
        logits_soft_cap=20.0,
        embedding_scale="sqrt_width",
    )


@pytest.fixture
def weights() -> Callable[..., dict[str, Array]]:
    """A function that draws every parameter of a config (biases and norms too), as canonical float32 arrays."""

    def make(config: GriffinConfig, seed: int = 0) -> dict[str, Array]:
        rng = np.random.default_rng(seed)
        return {
            row.name: (row.shape[-1] ** -0.5 * rng.normal(size=row.shape)).astype(np.float32)
            for row in param_table(config)
        }

    return make


@pytest.fixture
def model(config: GriffinConfig, weights: Callable[..., dict[str, Array]]) -> Any:
    """A GriffinCausalLM with every parameter drawn."""
    made = backend.GriffinCausalLM(config, init=None)
    backend.variables.assign(made, weights(config).items())
    return made


@pytest.fixture
def tokens(config: GriffinConfig, rng: np.random.Generator) -> Array:
    """int32 [3 11]."""
    return rng.integers(0, config.vocab_size, (3, 11)).astype(np.int32)
