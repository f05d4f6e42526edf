"""Decode states as values: make, exchange, gather and replace rows. Canonical form is the reference's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from griffin_core.checks import check_rows
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError, StateMismatch
from griffin_core.layouts.states import POSITION, check_state, state_table
from griffin_core.shapes import Array

State = Mapping[str, Array]


def init_state(config: GriffinConfig, batch: int, capacity: int | None = None) -> dict[str, Array]:
    """The state before any token: zeros, float64 (position int32).

    Args:
        capacity: tokens that global attention layers can hold; they refuse more.

    Raises:
        ConfigError: a global layer and no capacity, or a batch that is not positive.
    """
    rows = state_table(config, batch, capacity)
    return {row.name: np.zeros(row.shape, np.int32 if row.dtype == "int32" else np.float64) for row in rows}


def load_state(config: GriffinConfig, canonical: State) -> dict[str, Array]:
    """The reference's state from a canonical one: a checked copy in float64.

    Raises:
        StateMismatch: names or shapes are not the config's, or a position is negative.
    """
    check_state(config, {name: value.shape for name, value in canonical.items()})
    if (np.asarray(canonical[POSITION]) < 0).any():
        raise StateMismatch(f"state has position {int(np.min(canonical[POSITION]))}; expected at least 0")
    dtypes = {name: np.int32 if name == POSITION else np.float64 for name in canonical}
    return zero_unwritten({name: np.array(value, dtypes[name]) for name, value in canonical.items()})


def zero_unwritten(state: dict[str, Array]) -> dict[str, Array]:
    """Zero, in place, the cache slots that the current document has not written."""
    for name, value in state.items():
        if name.endswith((".k", ".v")):
            value[np.arange(value.shape[1]) >= state[POSITION][:, None]] = 0
    return state


def dump_state(config: GriffinConfig, state: State) -> dict[str, Array]:
    """The canonical form of a state: a copy, in which slots not yet written are zero."""
    check_state(config, {name: value.shape for name, value in state.items()})
    return zero_unwritten({name: np.array(value) for name, value in state.items()})


def take(state: State, rows: Sequence[int]) -> dict[str, Array]:
    """A state of the given rows (repeats allowed: beams).

    Raises:
        InputError: a row does not exist.
    """
    index = check_rows(rows, len(state[POSITION]))
    return {name: value[index] for name, value in state.items()}


def put(state: State, rows: Sequence[int], other: State) -> dict[str, Array]:
    """A copy of ``state`` in which ``rows[i]`` is row i of ``other``.

    Raises:
        InputError: a row does not exist or is named twice, or ``other`` has another number of rows.
        StateMismatch: ``other`` has other arrays.
    """
    index = check_rows(rows, len(state[POSITION]), once=True)
    if sorted(state) != sorted(other):
        raise StateMismatch(f"only one of the states has {sorted(set(state) ^ set(other))}; both must be of one config")
    out = {name: np.array(value) for name, value in state.items()}
    for name, value in other.items():
        expected = (len(index), *out[name].shape[1:])
        if value.shape != expected:
            raise InputError(f"{name} of the rows to put is {value.shape}, expected {expected}; one for each row")
        out[name][index] = value
    return out
