"""Native form of the numpy backend: the canonical dicts themselves, as arrays that nobody writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from griffin_core import reference
from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import check_params, param_table
from griffin_core.layouts.states import state_table
from griffin_core.numpy_backend.arrays import as_dtype, check_device
from griffin_core.shapes import Array

Params = dict[str, Array]
State = dict[str, Array]


def load_params(
    config: GriffinConfig, canonical: Mapping[str, Array], dtype: str | None = None, device: str | None = None
) -> Params:
    """Native parameters from canonical ones: copies in ``dtype`` (None keeps each), decay parameters float32.

    Raises:
        CheckpointMismatch: names or shapes are not the config's.
    """
    check_device(device)
    check_params(config, {name: tuple(value.shape) for name, value in canonical.items()})
    wanted = None if dtype is None else as_dtype(dtype)
    table = param_table(config)
    return {row.name: np.array(canonical[row.name], np.float32 if row.float32 else wanted) for row in table}


def dump_params(config: GriffinConfig, params: Mapping[str, Array]) -> dict[str, Array]:
    """Canonical parameters from native ones: copies, in canonical order."""
    return {row.name: np.array(params[row.name]) for row in param_table(config)}


def init_state(
    config: GriffinConfig,
    batch: int,
    capacity: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
) -> State:
    """The state before any token.

    Args:
        capacity: tokens that global attention layers can hold; required where there are any.
        dtype: of conv, k and v; None is float32. The recurrent state is float32 always.

    Raises:
        ConfigError: a global layer without a capacity, or a batch that is not positive.
    """
    check_device(device)
    compute = as_dtype(dtype or "float32")
    rows = state_table(config, batch, capacity)
    return {row.name: np.zeros(row.shape, compute if row.dtype is None else row.dtype) for row in rows}


def load_state(
    config: GriffinConfig, canonical: Mapping[str, Array], dtype: str | None = None, device: str | None = None
) -> State:
    """Native state from a canonical one: a checked copy; ``dtype`` of conv, k and v (None keeps each).

    Raises:
        StateMismatch: names or shapes are not the config's.
    """
    check_device(device)
    wide = reference.load_state(config, canonical)
    compute = None if dtype is None else as_dtype(dtype)
    kinds = {row.name: row.dtype for row in state_table(config, 1, capacity=1)}
    return {name: value.astype(kinds[name] or compute or canonical[name].dtype) for name, value in wide.items()}


def dump_state(config: GriffinConfig, state: Mapping[str, Array]) -> dict[str, Array]:
    """The canonical form: a copy, in which cache slots not yet written are zero."""
    return reference.dump_state(config, state)


def take(state: Mapping[str, Array], rows: Sequence[int]) -> State:
    """A state of the given rows; repeats are allowed.

    Raises:
        InputError: a row does not exist.
    """
    return reference.take(state, rows)


def put(state: Mapping[str, Array], rows: Sequence[int], other: Mapping[str, Array]) -> State:
    """A copy of ``state`` in which ``rows[i]`` is row i of ``other``.

    Raises:
        InputError: a row does not exist or is named twice, or ``other`` has another number of rows.
    """
    return reference.put(state, rows, other)
