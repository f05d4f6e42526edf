"""A tiny config, the backends that load, and a saved checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

import griffin_core as griffin
from griffin_core import registry

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


@pytest.fixture
def tiny() -> griffin.GriffinConfig:
    return TINY


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    griffin.init(TINY, seed=1, backend="numpy").save(tmp_path / "model")
    return tmp_path / "model"
