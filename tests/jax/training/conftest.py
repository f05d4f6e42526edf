"""A model small enough to compile and train in seconds; all tests take the same shapes, so that programs are shared."""

import numpy as np
import pytest

from griffin_core.config import GriffinConfig
from griffin_core.layouts.initialise import init_params
from griffin_core.presets import BYTE_VOCAB
from griffin_core.schedules import TrainerOptions

jax = pytest.importorskip("jax")
pytest.importorskip("optax")
pytest.importorskip("orbax.checkpoint")
step = pytest.importorskip("griffin_core_jax.step")


@pytest.fixture(scope="session")
def config():
    return GriffinConfig(
        width=16,
        lru_width=24,
        mlp_width=32,
        num_heads=2,
        head_dim=8,
        gate_blocks=2,
        block_pattern=("recurrent", "attention"),
        num_layers=4,  # two periods, compiled as one
        attention_window=6,
        vocab_size=BYTE_VOCAB,
        logits_soft_cap=30.0,
    )


@pytest.fixture(scope="session")
def options():
    return TrainerOptions(steps=50, learning_rate=1e-2, warmup=3)


@pytest.fixture(scope="session")
def gradients(config, options):
    """(native parameters, batch) -> (loss, gradients), compiled once for the small config."""
    return jax.jit(lambda params, batch: step.gradients(config, options, params, batch))


@pytest.fixture(scope="session")
def batch_of():
    """Packed rows [3 20] with padding, masked targets and several documents."""

    def make(seed=0, t=20):
        rng = np.random.default_rng(seed)
        tokens = rng.integers(0, BYTE_VOCAB, (3, t + 1)).astype(np.int32)
        positions = np.tile(np.arange(t, dtype=np.int32), (3, 1))
        positions[1, 9:] = np.arange(t - 9)
        positions[2, 15:] = -1
        targets = tokens[:, 1:].copy()
        targets[1, 8] = targets[0, 3] = targets[2, 14] = -1
        targets[positions < 0] = -1
        return {"tokens": tokens[:, :-1].copy(), "targets": targets, "positions": positions}

    return make


@pytest.fixture(scope="session")
def lively():
    def lively(config, seed=0):
        """Weights with every kind of parameter away from zero, as float64."""
        rng = np.random.default_rng(seed)
        params = {name: array.astype(np.float64) for name, array in init_params(config, seed).items()}
        return {
            name: array if name.endswith("recurrent_param") else array + 0.1 * rng.standard_normal(array.shape)
            for name, array in params.items()
        }

    return lively
