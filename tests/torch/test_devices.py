"""Where arrays are made when nothing is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import griffin_core_torch as backend
from griffin_core import presets, registry
from griffin_core.errors import BackendError, ConfigError

TINY = presets.preset("griffin-tiny").config


def test_everything_is_made_on_the_device_in_force() -> None:
    with backend.on_device("meta"):  # a device without data, which every machine has
        assert backend.platform() == "meta"
        assert backend.from_numpy(np.zeros(2)).device.type == "meta"
        assert backend.from_numpy(np.zeros(2), device="cpu").device.type == "cpu"
        assert {value.device.type for value in backend.init_state(TINY, 1).values()} == {"meta"}
    assert backend.platform() == "cpu"
    assert backend.from_numpy(np.zeros(2)).device.type == "cpu"


def test_what_is_not_there_is_refused() -> None:
    absent = f"cuda:{torch.cuda.device_count()}"
    with (
        pytest.raises(ConfigError, match="device 'gpu' is unknown to PyTorch; expected cpu, cuda"),
        backend.on_device("gpu"),
    ):
        pass
    with pytest.raises(BackendError, match=f"device '{absent}' cannot be used"), registry.on_device("torch", absent):
        pass
    with pytest.raises(BackendError, match="the numpy backend has no on_device"), registry.on_device("numpy", "cpu"):
        pass
    with registry.on_device("numpy", None):
        pass


def test_the_environment_names_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIFFIN_TORCH_DEVICE", "meta")
    assert backend.platform() == "meta"
    with backend.on_device("cpu"):
        assert backend.platform() == "cpu"
    monkeypatch.setenv("GRIFFIN_TORCH_DEVICE", "gpu")
    with pytest.raises(ConfigError, match="device 'gpu' is unknown to PyTorch"):
        backend.from_numpy(np.zeros(2))
