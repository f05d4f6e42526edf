"""Shared by the sharding tests: eight devices of the host, a config that all of them can share, unsharded results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import griffin_core_jax as backend
from griffin_core import presets
from griffin_core.config import GriffinConfig
from griffin_core.schedules import TrainerOptions
from griffin_core_jax import optimizer, step

DEVICES = 8
ROWS, TIME = 8, 24


@pytest.fixture(scope="session", autouse=True)
def eight_devices() -> None:
    """Skips where the process was not started with eight host devices (tests/conftest.py asks for them)."""
    if jax.device_count() < DEVICES:
        pytest.skip("needs XLA_FLAGS=--xla_force_host_platform_device_count=8 when jax starts")


@pytest.fixture(scope="session")
def config() -> GriffinConfig:
    """Two periods of a recurrent and an attention layer; everything that is split divides by 4."""
    tiny = presets.preset("griffin-tiny").config
    sizes = {"width": 16, "lru_width": 32, "mlp_width": 24, "num_heads": 4, "head_dim": 8, "gate_blocks": 4}
    pattern = ("recurrent", "attention")
    return tiny.replace(
        num_layers=4, block_pattern=pattern, attention_window=11, vocab_size=40, logits_soft_cap=5.0, **sizes
    )


@pytest.fixture(scope="session")
def params(config: GriffinConfig, drawn: Callable[..., Any]) -> dict[str, Any]:
    """Native parameters of this folder's config (the fixture above would keep those of another)."""
    return backend.load_params(config, drawn(config))


@pytest.fixture(scope="session")
def options() -> TrainerOptions:
    """No clipping, so that the first moments after one step are (1 - beta1) times the gradient."""
    return TrainerOptions(steps=10, clip_norm=0.0, checkpoint_activations=True)


@pytest.fixture(scope="session")
def batch() -> dict[str, np.ndarray]:
    """Rows of one document, of several, with padding, of padding alone; windows and taps cross every cut."""
    rng = np.random.default_rng(1)
    positions = np.tile(np.arange(TIME, dtype=np.int32), (ROWS, 1))
    positions[1, 10:] = np.arange(TIME - 10)
    positions[2, 17:] = -1
    positions[3, 3:] = np.arange(TIME - 3)
    positions[3, 19:] = np.arange(TIME - 19)
    positions[4, 12:] = np.arange(TIME - 12)
    positions[4, 14:] = -1
    positions[5] = -1
    tokens = rng.integers(0, 40, (ROWS, TIME)).astype(np.int32)
    targets = np.where(positions >= 0, rng.integers(0, 40, (ROWS, TIME)), -1).astype(np.int32)
    return {"tokens": tokens, "targets": targets, "positions": positions}


@pytest.fixture(scope="session")
def logits(config: GriffinConfig, params: dict[str, Any], batch: dict[str, np.ndarray]) -> np.ndarray:
    """Of the unsharded model."""
    return np.asarray(backend.forward(config, params, batch["tokens"], batch["positions"])[0])


@pytest.fixture(scope="session")
def stepped(
    config: GriffinConfig, params: dict[str, Any], batch: dict[str, np.ndarray], options: TrainerOptions
) -> tuple[Any, Any, dict[str, Any]]:
    """(params, optimiser state, figures) of one unsharded step at rate 1e-3."""
    state = optimizer.init_optimizer(config, options, params)
    take = jax.jit(lambda p, s, b: step.train_step(config, options, p, s, b, np.float32(1e-3)))
    return take(params, state, batch)


@pytest.fixture(scope="session")
def close(config: GriffinConfig) -> Callable[[Any, Any, str], None]:
    """A comparison of arrays in float32, relative to the largest value of each.

    Splitting a sum orders its terms anew: of n terms each result is off by n roundings at most, by sqrt(n) as a rule,
    and each sub-block hands its error to the next. n is the longest sum (time, MLP or attention), taken whole.
    """
    terms = max(TIME * ROWS, config.mlp_width, config.vocab_size)
    bound = terms * 2 * config.num_layers * np.finfo(np.float32).eps / 2

    def compare(got: Any, expected: Any, what: str) -> None:
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        assert got.shape == expected.shape, what
        assert np.isfinite(got).all(), f"{what} is not finite"
        largest = np.abs(expected).max(initial=0.0)
        error = np.abs(got - expected).max(initial=0.0)
        assert error <= bound * largest, f"{what}: {error:.3g} against {bound * largest:.3g}"

    return compare
