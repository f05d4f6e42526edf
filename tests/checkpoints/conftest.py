"""Small models in every dtype for the checkpoint tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from griffin_core.checkpoints import native
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError
from griffin_core.layouts.initialise import init_params
from griffin_core.shapes import DTYPES, Array
from griffin_core.text.tokenizer import ByteTokenizer


def _small(**changes: object) -> GriffinConfig:
    fields: dict[str, object] = {
        "width": 16,
        "lru_width": 24,
        "mlp_width": 32,
        "num_heads": 2,
        "head_dim": 8,
        "gate_blocks": 3,
        "block_pattern": ["recurrent", "attention"],
        "num_layers": 3,
        "attention_window": 9,
        "vocab_size": 264,
    }
    return GriffinConfig(**{**fields, **changes})  # type: ignore[arg-type]


def _exchange(**changes: object) -> GriffinConfig:
    fields: dict[str, object] = {
        "lru_width": 16,
        "gate_blocks": 2,
        "logits_soft_cap": 30.0,
        "embedding_scale": "sqrt_width",
    }
    return _small(**{**fields, **changes})


def _weights(config: GriffinConfig, dtype: str = "float32", seed: int = 0) -> dict[str, Array]:
    return {name: value.astype(DTYPES[dtype]) for name, value in init_params(config, seed).items()}


@pytest.fixture
def small_config() -> Callable[..., GriffinConfig]:
    """A small config with changed fields."""
    return _small


@pytest.fixture
def exchange_config() -> Callable[..., GriffinConfig]:
    """A small config that the exchange format can express, with changed fields."""
    return _exchange


@pytest.fixture
def weights() -> Callable[..., dict[str, Array]]:
    """Random weights of a config in a dtype."""
    return _weights


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write a small checkpoint and give its directory."""

    def write(name: str = "model", seed: int = 0, shard: int | str | None = None, dtype: str = "float32") -> Path:
        config = _small()
        files = ByteTokenizer().files()
        native.save(tmp_path / name, config, _weights(config, dtype, seed), files, {"step": 7}, max_shard_size=shard)
        return tmp_path / name

    return write


def _refuse(directory: Path, words: str | None = None, verify: bool = True) -> str:
    with pytest.raises(CheckpointError, match=words) as caught:
        native.read(directory, verify=verify)
    message = str(caught.value)
    assert "\n" not in message
    assert str(directory) in message
    return message


@pytest.fixture
def refuse() -> Callable[..., str]:
    """Reading the directory fails with a CheckpointError of one line that names it; gives the line."""
    return _refuse
