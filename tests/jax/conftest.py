"""Shared by the JAX tests: one tiny config, models with every parameter drawn, and the TPU compiler or a skip."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax")

import griffin_core_jax as backend
from griffin_core import presets
from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import param_table


@pytest.fixture(scope="session")
def config() -> GriffinConfig:
    """Five layers: a full period of three, then two recurrent ones."""
    tiny = presets.preset("griffin-tiny").config
    sizes = {"width": 16, "lru_width": 24, "mlp_width": 20, "num_heads": 2, "head_dim": 8, "gate_blocks": 2}
    return tiny.replace(num_layers=5, attention_window=7, vocab_size=50, **sizes)


@pytest.fixture(scope="session")
def drawn() -> Callable[..., dict[str, np.ndarray]]:
    """A function that draws every parameter of a config (biases and norms too), canonical."""

    def make(config: GriffinConfig, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {
            row.name: (row.shape[-1] ** -0.5 * rng.normal(size=row.shape)).astype(np.float32)
            for row in param_table(config)
        }

    return make


@pytest.fixture(scope="session")
def params(config: GriffinConfig, drawn: Callable[..., Any]) -> dict[str, Any]:
    """Native parameters of the tiny config."""
    return backend.load_params(config, drawn(config))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def libtpu() -> None:
    """Skips the test where there is no TPU compiler."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed (extra tpu-aot)")
