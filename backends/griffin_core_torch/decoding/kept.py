"""Device steps are kept from call to call: recording one costs as much as many tokens."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from griffin_core.config import GriffinConfig
from griffin_core_torch.decoding.device_step import DeviceStep
from griffin_core_torch.triton.loading import interpreted

LIMIT = 4
"""Steps that are kept; each has a state for its rows, and what its graph works in."""

_Key = tuple[Any, ...]
_lock = threading.Lock()
_kept: dict[_Key, _Entry] = {}


@dataclass(frozen=True)
class _Entry:
    step: DeviceStep
    weights: dict[str, tuple[weakref.ref[Tensor], int]]

    def is_for(self, params: Mapping[str, Tensor]) -> bool:
        """Whether it was recorded with these very tensors where they stand."""
        return self.weights.keys() == params.keys() and all(
            ref() is params[name] and place == params[name].data_ptr() for name, (ref, place) in self.weights.items()
        )

    def is_dead(self) -> bool:
        return any(ref() is None for ref, _ in self.weights.values())


def take(
    config: GriffinConfig, params: Mapping[str, Tensor], state: Mapping[str, Tensor], dtype: torch.dtype
) -> DeviceStep:
    """A step for these weights and a state of these shapes; nobody else has it until it is ``put`` back."""
    cast = {name: x if name.endswith("recurrent_param") else x.to(dtype) for name, x in params.items()}
    key = _key(config, cast, state)
    with _lock:
        for old in [k for k, entry in _kept.items() if entry.is_dead()]:
            del _kept[old]
        entry = _kept.pop(key, None)
    step = entry.step if entry is not None and entry.is_for(cast) else DeviceStep(config, state, dtype)
    step.params = cast
    return step


def put(step: DeviceStep, state: Mapping[str, Tensor]) -> None:
    """Keep a step for the next call with a state of these shapes. Its weights are only remembered, not kept."""
    weights = {name: (weakref.ref(x), x.data_ptr()) for name, x in step.params.items()}
    key = _key(step.config, step.params, state)
    step.params = {}
    with _lock:
        _kept[key] = _Entry(step, weights)
        while len(_kept) > LIMIT:
            del _kept[next(iter(_kept))]


def _key(config: GriffinConfig, params: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> _Key:
    shapes = tuple((name, tuple(x.shape), x.dtype) for arrays in (state, params) for name, x in arrays.items())
    device = next(iter(params.values())).device
    return config, device, interpreted(), shapes
