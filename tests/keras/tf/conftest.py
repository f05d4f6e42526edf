"""Shared by the tests of TensorFlow's engine: it stands in the registry as the Keras backend, test by test."""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("tensorflow")

import griffin_core_keras.tf as tf_engine
from griffin_core import registry


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The engine alone, whichever one the Keras backend of this process has chosen."""
    monkeypatch.setitem(registry._loaded, "keras", tf_engine)
    monkeypatch.setitem(registry._kernels, "keras", tf_engine.KERNELS)
    monkeypatch.delenv("GRIFFIN_KERNEL", raising=False)
    return tf_engine


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
