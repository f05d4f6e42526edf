"""The native form: flat dicts of tensors under the canonical names, dense weights as [in out]. States are values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from griffin_core.checks import check_rows
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError, StateMismatch
from griffin_core.layouts.keras import keras_places
from griffin_core.layouts.params import check_params, param_table
from griffin_core.layouts.states import POSITION, check_state, state_table
from griffin_core.shapes import Array
from griffin_core_keras.dtypes import as_dtype
from griffin_core_keras.engine import engine, require_unchanged

Params = Mapping[str, Any]
State = Mapping[str, Any]


def load_params(
    config: GriffinConfig, canonical: Mapping[str, Array], dtype: str | None = None, device: str | None = None
) -> dict[str, Any]:
    """Parameters from canonical arrays (copied).

    Args:
        canonical: arrays by canonical name.
        dtype: name of a dtype, or None to keep each array's; the decay parameter is float32 always.
        device: a device of the engine, or None for where Keras makes its arrays.

    Raises:
        CheckpointMismatch: names or shapes are not the config's.
        BackendError: ``KERAS_BACKEND`` was changed after Keras had been imported.
    """
    require_unchanged()
    check_params(config, {name: tuple(value.shape) for name, value in canonical.items()})
    kept = {row.name for row in param_table(config) if row.float32}
    return {
        place.canonical: engine.from_numpy(
            place.transform.there(np.asarray(canonical[place.canonical])),
            "float32" if place.canonical in kept else dtype,
            device,
        )
        for place in keras_places(config)
    }


def dump_params(config: GriffinConfig, params: Params) -> dict[str, Array]:
    """Canonical arrays by canonical name: fresh copies in the parameters' dtypes.

    Raises:
        CheckpointMismatch: names or shapes are not the config's.
    """
    found = {
        place.canonical: np.ascontiguousarray(place.transform.back(engine.to_numpy(params[place.canonical])))
        for place in keras_places(config)
    }
    check_params(config, {name: value.shape for name, value in found.items()})
    return found


def init_state(
    config: GriffinConfig,
    batch: int,
    capacity: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """The state before any token.

    Args:
        batch: number of rows.
        capacity: tokens that global attention layers can hold; they refuse more.
        dtype: the compute dtype of conv inputs, keys and values (default float32).
        device: a device of the engine, or None for where Keras makes its arrays.

    Raises:
        ConfigError: a global layer and no capacity, or a batch that is not positive.
    """
    compute = as_dtype(dtype, "float32")
    found = {}
    for row in state_table(config, batch, capacity):
        kind = row.dtype or compute
        integer = kind == "int32"
        zeros = np.zeros(row.shape, np.int32 if integer else np.float32)
        found[row.name] = engine.from_numpy(zeros, None if integer else kind, device)
    return found


def load_state(
    config: GriffinConfig, canonical: Mapping[str, Array], dtype: str | None = None, device: str | None = None
) -> dict[str, Any]:
    """A state from canonical arrays (copied).

    Args:
        dtype: the compute dtype of conv inputs, keys and values; None keeps each array's.

    Raises:
        StateMismatch: names or shapes are not the config's, or a position is negative.
    """
    check_state(config, {name: tuple(value.shape) for name, value in canonical.items()})
    if (np.asarray(canonical[POSITION]) < 0).any():
        raise StateMismatch(f"state has position {int(np.min(canonical[POSITION]))}; expected at least 0")
    state = {POSITION: engine.from_numpy(np.asarray(canonical[POSITION], np.int32), None, device)}
    for name, value in canonical.items():
        if name != POSITION:
            state[name] = engine.from_numpy(np.asarray(value), "float32" if name.endswith(".h") else dtype, device)
    return state


def dump_state(config: GriffinConfig, state: State) -> dict[str, Array]:
    """The canonical form of a state: fresh arrays in which cache slots not yet written are zero.

    Raises:
        StateMismatch: names or shapes are not the config's.
    """
    check_state(config, {name: tuple(value.shape) for name, value in state.items()})
    canonical = {name: engine.to_numpy(value) for name, value in state.items()}
    for name, value in canonical.items():
        if name.endswith((".k", ".v")):
            value[np.arange(value.shape[1]) >= canonical[POSITION][:, None]] = 0
    return canonical


def take(state: State, rows: Sequence[int]) -> dict[str, Any]:
    """A state of the given rows (repeats allowed: beams).

    Raises:
        InputError: a row does not exist.
    """
    index = check_rows(rows, state[POSITION].shape[0]).astype(np.int32)
    return {name: ops.take(value, index, axis=0) for name, value in state.items()}


def put(state: State, rows: Sequence[int], other: State) -> dict[str, Any]:
    """A copy of ``state`` in which ``rows[i]`` is row i of ``other``.

    Raises:
        InputError: a row does not exist or is named twice, or ``other`` has another number of rows.
        StateMismatch: ``other`` has other arrays.
    """
    index = check_rows(rows, state[POSITION].shape[0], once=True).astype(np.int32)
    if sorted(state) != sorted(other):
        raise StateMismatch(f"only one of the states has {sorted(set(state) ^ set(other))}; both must be of one config")
    out = {}
    for name, value in state.items():
        expected = (len(index), *value.shape[1:])
        if tuple(other[name].shape) != expected:
            raise InputError(f"{name} of the rows to put is {tuple(other[name].shape)}, expected {expected}")
        new = ops.cast(other[name], engine.dtype_name(value))
        out[name] = ops.scatter_update(value, index[:, None], new) if len(index) else value
    return out
