"""The one table from logical axes to the axes of a mesh, and what follows from it for every array of a model.

Columns of linear_x, linear_y, q, gate and up are split over ``tensor``, and rows of linear_out, o and down: one sum
closes each sub-block. Conv, gates and recurrence are split by width in whole gate blocks and need no sum at all. The
one key and value head is on every device of ``tensor``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from griffin_core.config import RECURRENT, GriffinConfig
from griffin_core.layouts.params import ParamSpec
from griffin_core.layouts.states import POSITION
from griffin_core_jax.layout import SEGMENTS, Row, segments, stacked_axes, tree

DATA, FSDP, SEQUENCE, TENSOR = "data", "fsdp", "sequence", "tensor"
AXES = (DATA, FSDP, SEQUENCE, TENSOR)
"""Axes of a mesh, the one with the nearest neighbours last."""
BATCH = (DATA, FSDP)

RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": BATCH,
    "time": SEQUENCE,
    "vocab": TENSOR,
    "lru": TENSOR,
    "heads": TENSOR,
    "mlp": TENSOR,
    "gate_blocks": TENSOR,
    "embed": FSDP,
    "block_in": FSDP,
    "kv": None,
    "block_out": None,
    "conv": None,
    "one": None,
    "layers": None,
    "cache": None,
}
"""Logical axis to mesh axis; None is not split."""

_NORMS = ("temporal_norm", "channel_norm")


@dataclass(frozen=True)
class Placement:
    """How one array of the parameters stands on a mesh.

    Attributes:
        name: native name.
        spec: mesh axes of each of its axes.
        gathered: the axis of one layer's array that is split over ``fsdp`` and gathered before use, or None.
        partial: whether devices of ``tensor`` that hold equal values each see a part of its gradient.
    """

    name: str
    spec: PartitionSpec
    gathered: int | None
    partial: bool

    @property
    def summed(self) -> tuple[str, ...]:
        """Mesh axes over which a device's gradient is still to be summed after its own backward pass."""
        batch = (DATA, SEQUENCE) if self.gathered is not None else (DATA, FSDP, SEQUENCE)
        return (*batch, TENSOR) if self.partial else batch


def partition(axes: tuple[str, ...]) -> PartitionSpec:
    """The spec of an array with these logical axes.

    A vector of the model's width (norms, biases of row-split products) is not split over ``fsdp``: it is small, and
    would have to be gathered in every layer.
    """
    wide = [axis for axis in axes if axis not in ("layers", "one")]
    return PartitionSpec(*(None if wide == ["embed"] else RULES[axis] for axis in axes))


def placements(config: GriffinConfig) -> dict[str, Any]:
    """A tree in the form of the parameters, of ``Placement`` records."""

    def leaf(specs: tuple[ParamSpec, ...], row: Row | None) -> Placement:
        name = specs[0].name if row is None else row.name
        spec = partition(stacked_axes(specs[0], row))
        at = spec.index(FSDP) if FSDP in spec else None
        partial = row is not None and TENSOR not in spec and name not in _NORMS
        return Placement(name, spec, at if at is None or row is None else at - 1, partial)

    return tree(config, leaf)


def layer_placements(config: GriffinConfig) -> dict[str, Placement]:
    """The records of one layer's arrays by native name; a name means the same in every layer."""
    stacks = placements(config)[SEGMENTS]
    return {name: found for places in stacks for layer in places for name, found in layer.items()}


def param_specs(config: GriffinConfig) -> dict[str, Any]:
    """A tree in the form of the parameters, of PartitionSpec."""
    return _map(lambda placement: placement.spec, placements(config))


def param_shardings(config: GriffinConfig, mesh: Mesh) -> dict[str, Any]:
    """A tree in the form of the parameters, of NamedSharding."""
    return _map(lambda placement: NamedSharding(mesh, placement.spec), placements(config))


def state_specs(config: GriffinConfig) -> dict[str, Any]:
    """A tree in the form of a decode state, of PartitionSpec."""
    recurrent = {"h": ("layers", "batch", "lru"), "conv": ("layers", "batch", "conv", "lru")}
    attention = dict.fromkeys(("k", "v"), ("layers", "batch", "cache", "kv"))
    return {
        POSITION: partition(("batch",)),
        SEGMENTS: tuple(
            tuple(
                {name: partition(axes) for name, axes in (recurrent if kind == RECURRENT else attention).items()}
                for kind in segment.kinds
            )
            for segment in segments(config)
        ),
    }


def batch_spec() -> PartitionSpec:
    """The spec of tokens, targets and positions [b t]."""
    return partition(("batch", "time"))


def like_params(config: GriffinConfig, params: Any, state: Any, mesh: Mesh) -> Any:
    """Shardings of an optimiser's state: a part in the form of the parameters is split as they are, the rest is not.

    Args:
        params: the parameters, or their shapes.
        state: the optimiser's state, or its shapes.
    """
    form = jax.tree.structure(params)
    specs = param_shardings(config, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def is_params(node: Any) -> bool:
        return jax.tree.structure(node) == form

    return jax.tree.map(lambda node: specs if is_params(node) else everywhere, state, is_leaf=is_params)


def _map(function: Callable[[Placement], Any], found: dict[str, Any]) -> Any:
    return jax.tree.map(function, found, is_leaf=lambda node: isinstance(node, Placement))
