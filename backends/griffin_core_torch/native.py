"""The native form: flat dicts of tensors under the canonical names. States are values; nothing is shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from griffin_core.checks import check_rows
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError, StateMismatch
from griffin_core.layouts.params import check_params, param_table
from griffin_core.layouts.states import POSITION, check_state, state_table
from griffin_core.shapes import Array
from griffin_core_torch.arrays import as_dtype, from_numpy, to_numpy
from griffin_core_torch.devices import made_on

Params = Mapping[str, Tensor]
State = Mapping[str, Tensor]


def load_params(
    config: GriffinConfig, canonical: Mapping[str, Array], dtype: str | None = None, device: str | None = None
) -> dict[str, Tensor]:
    """Parameters from canonical arrays (copied).

    Args:
        canonical: arrays by canonical name.
        dtype: name of a dtype, or None to keep each array's; the decay parameter is float32 always.
        device: a PyTorch device, or None for the one in force (``on_device``), the CPU.

    Raises:
        CheckpointMismatch: names or shapes are not the config's.
    """
    check_params(config, {name: tuple(value.shape) for name, value in canonical.items()})
    return {
        row.name: from_numpy(canonical[row.name], "float32" if row.float32 else dtype, device)
        for row in param_table(config)
    }


def dump_params(config: GriffinConfig, params: Params) -> dict[str, Array]:
    """Canonical arrays by canonical name: fresh copies in the parameters' dtypes.

    Raises:
        CheckpointMismatch: names or shapes are not the config's.
    """
    check_params(config, {name: tuple(value.shape) for name, value in params.items()})
    return {row.name: to_numpy(params[row.name]) for row in param_table(config)}


def init_state(
    config: GriffinConfig,
    batch: int,
    capacity: int | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> dict[str, Tensor]:
    """The state before any token.

    Args:
        batch: number of rows.
        capacity: tokens that global attention layers can hold; they refuse more.
        dtype: the compute dtype of conv inputs, keys and values (default float32).
        device: a PyTorch device, or None for the one in force (``on_device``), the CPU.

    Raises:
        ConfigError: a global layer and no capacity, or a batch that is not positive.
    """
    compute = as_dtype(dtype, torch.float32)
    fixed = {"float32": torch.float32, "int32": torch.int32, None: compute}
    return {
        row.name: torch.zeros(row.shape, dtype=fixed[row.dtype], device=made_on(device))
        for row in state_table(config, batch, capacity)
    }


def load_state(
    config: GriffinConfig,
    canonical: Mapping[str, Array],
    dtype: str | None = None,
    device: str | None = None,
) -> dict[str, Tensor]:
    """A state from canonical arrays (copied).

    Args:
        dtype: the compute dtype of conv inputs, keys and values; None keeps each array's.

    Raises:
        StateMismatch: names or shapes are not the config's, or a position is negative.
    """
    check_state(config, {name: tuple(value.shape) for name, value in canonical.items()})
    if (np.asarray(canonical[POSITION]) < 0).any():
        raise StateMismatch(f"state has position {int(np.min(canonical[POSITION]))}; expected at least 0")
    names = {POSITION: None}
    state = {}
    for name, value in canonical.items():
        kind = names.get(name, "float32" if name.endswith(".h") else dtype)
        state[name] = from_numpy(value, kind, device)
    state[POSITION] = state[POSITION].to(torch.int32)
    return state


def dump_state(config: GriffinConfig, state: State) -> dict[str, Array]:
    """The canonical form of a state: fresh arrays in which cache slots not yet written are zero.

    Raises:
        StateMismatch: names or shapes are not the config's.
    """
    check_state(config, {name: tuple(value.shape) for name, value in state.items()})
    canonical = {name: to_numpy(value) for name, value in state.items()}
    for name, value in canonical.items():
        if name.endswith((".k", ".v")):
            value[np.arange(value.shape[1]) >= canonical[POSITION][:, None]] = 0
    return canonical


def take(state: State, rows: Sequence[int]) -> dict[str, Tensor]:
    """A state of the given rows (repeats allowed: beams).

    Raises:
        InputError: a row does not exist.
    """
    index = torch.as_tensor(check_rows(rows, state[POSITION].shape[0])).to(state[POSITION].device)
    return {name: value.index_select(0, index) for name, value in state.items()}


def put(state: State, rows: Sequence[int], other: State) -> dict[str, Tensor]:
    """A copy of ``state`` in which ``rows[i]`` is row i of ``other``.

    Raises:
        InputError: a row does not exist or is named twice, or ``other`` has another number of rows.
        StateMismatch: ``other`` has other arrays.
    """
    index = torch.as_tensor(check_rows(rows, state[POSITION].shape[0], once=True)).to(state[POSITION].device)
    if sorted(state) != sorted(other):
        raise StateMismatch(f"only one of the states has {sorted(set(state) ^ set(other))}; both must be of one config")
    out = {}
    for name, value in state.items():
        expected = (len(index), *value.shape[1:])
        if tuple(other[name].shape) != expected:
            raise InputError(f"{name} of the rows to put is {tuple(other[name].shape)}, expected {expected}")
        out[name] = value.index_copy(0, index, other[name].to(value.dtype))
    return out
