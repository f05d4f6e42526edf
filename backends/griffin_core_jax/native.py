"""The native form: stacked arrays (``layout``). States are values; nothing is shared with what they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from griffin_core.checks import check_rows
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointMismatch, InputError, StateMismatch
from griffin_core.layouts.params import ParamSpec, check_params, param_table
from griffin_core.layouts.states import POSITION, check_state, state_table
from griffin_core.shapes import Array
from griffin_core_jax.arrays import as_dtype, from_numpy, to_numpy
from griffin_core_jax.devices import find_device
from griffin_core_jax.layout import SEGMENTS, Row, each_layer, segments, tree

Params = Mapping[str, Any]
State = Mapping[str, Any]
NAMES = ("h", "conv", "k", "v")
"""Arrays of a layer's state: the first two of recurrent layers, the others of attention."""


@dataclass(frozen=True)
class _Place:
    """A leaf: the canonical rows that one native array holds."""

    specs: tuple[ParamSpec, ...]
    row: Row | None


def load_params(
    config: GriffinConfig, canonical: Mapping[str, Array], dtype: str | None = None, device: str | None = None
) -> dict[str, Any]:
    """Parameters from canonical arrays (copied): layers stacked, dense weights [in out].

    Args:
        canonical: arrays by canonical name.
        dtype: name of a dtype, or None to keep each array's; the decay parameter is float32 always.
        device: "cpu", "gpu", "tpu", or None for JAX's default.

    Raises:
        CheckpointMismatch: names or shapes are not the config's.
    """
    check_params(config, {name: tuple(value.shape) for name, value in canonical.items()})

    def leaf(specs: tuple[ParamSpec, ...], row: Row | None) -> Any:
        kind = "float32" if specs[0].float32 else dtype
        if row is None:
            return from_numpy(canonical[specs[0].name], kind, device)
        parts = [np.asarray(canonical[spec.name]) for spec in specs]
        stacked = np.stack([part.T if row.transposed else part for part in parts])
        return from_numpy(stacked, kind, device)

    return tree(config, leaf)


def dump_params(config: GriffinConfig, params: Params) -> dict[str, Array]:
    """Canonical arrays by canonical name: fresh copies in the parameters' dtypes.

    Raises:
        CheckpointMismatch: the arrays are not the config's.
    """
    found: dict[str, Array] = {}

    where = tree(config, lambda specs, row: _Place(specs, row))
    kept, given = jax.tree.structure(where), jax.tree.structure(dict(params))
    if kept != given:
        raise CheckpointMismatch(f"parameters have the form {given}; expected {kept}, as load_params makes it")
    for place, value in zip(jax.tree.leaves(where), jax.tree.leaves(dict(params)), strict=True):
        specs, row = place.specs, place.row
        array = to_numpy(value)
        if row is None:
            found[specs[0].name] = array
            continue
        for spec, part in zip(specs, array, strict=True):
            found[spec.name] = np.array(part.T if row.transposed else part, order="C")
    check_params(config, {name: value.shape for name, value in found.items()})
    return {spec.name: found[spec.name] for spec in param_table(config)}


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
        device: "cpu", "gpu", "tpu", or None for JAX's default.

    Raises:
        ConfigError: a global layer and no capacity, or a batch that is not positive.
    """
    compute, where = as_dtype(dtype, jnp.float32), None if device is None else find_device(device)
    rows = {row.name: row for row in state_table(config, batch, capacity)}

    def zeros(name: str, repeats: tuple[int, ...]) -> jax.Array:
        row = rows[name]
        return jnp.zeros((*repeats, *row.shape), compute if row.dtype is None else row.dtype, device=where)

    stacks = tuple(
        tuple(
            {
                short: zeros(f"layers.{segment.first + place}.{short}", (segment.repeats,))
                for short in NAMES
                if f"layers.{segment.first + place}.{short}" in rows
            }
            for place in range(len(segment.kinds))
        )
        for segment in segments(config)
    )
    return {POSITION: zeros(POSITION, ()), SEGMENTS: stacks}


def load_state(
    config: GriffinConfig,
    canonical: Mapping[str, Array],
    dtype: str | None = None,
    device: str | None = None,
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

    def stack(segment: Any, place: int, short: str) -> jax.Array:
        parts = [np.asarray(canonical[f"layers.{layer}.{short}"]) for layer in segment.layers(place)]
        return from_numpy(np.stack(parts), "float32" if short == "h" else dtype, device)

    stacks = tuple(
        tuple(
            {
                short: stack(segment, place, short)
                for short in NAMES
                if f"layers.{segment.first + place}.{short}" in canonical
            }
            for place in range(len(segment.kinds))
        )
        for segment in segments(config)
    )
    return {POSITION: from_numpy(np.asarray(canonical[POSITION], np.int32), None, device), SEGMENTS: stacks}


def dump_state(config: GriffinConfig, state: State) -> dict[str, Array]:
    """The canonical form of a state: fresh arrays in which cache slots not yet written are zero.

    Raises:
        StateMismatch: names or shapes are not the config's.
    """
    canonical = {POSITION: to_numpy(state[POSITION])}
    host = jax.tree.map(np.asarray, state[SEGMENTS])
    for layer, arrays in each_layer(config, host).items():
        canonical |= {f"layers.{layer}.{name}": np.array(arrays[name]) for name in NAMES if name in arrays}
    check_state(config, {name: tuple(value.shape) for name, value in canonical.items()})
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
    return {POSITION: state[POSITION][index], SEGMENTS: jax.tree.map(lambda x: x[:, index], state[SEGMENTS])}


def put(state: State, rows: Sequence[int], other: State) -> dict[str, Any]:
    """A copy of ``state`` in which ``rows[i]`` is row i of ``other``.

    Raises:
        InputError: a row does not exist or is named twice, or ``other`` has another number of rows.
        StateMismatch: ``other`` has other arrays.
    """
    index = check_rows(rows, state[POSITION].shape[0], once=True).astype(np.int32)
    if jax.tree.structure(dict(state)) != jax.tree.structure(dict(other)):
        raise StateMismatch("the two states have other arrays; both must be of one config")

    def write(value: jax.Array, new: jax.Array, axis: int) -> jax.Array:
        expected = (*value.shape[:axis], len(index), *value.shape[axis + 1 :])
        if tuple(new.shape) != expected:
            raise InputError(f"an array of the rows to put is {tuple(new.shape)}, expected {expected}")
        at = (slice(None),) * axis + (index,)
        return value.at[at].set(new.astype(value.dtype))

    stacks = jax.tree.map(lambda value, new: write(value, new, 1), state[SEGMENTS], other[SEGMENTS])
    return {POSITION: write(state[POSITION], other[POSITION], 0), SEGMENTS: stacks}
