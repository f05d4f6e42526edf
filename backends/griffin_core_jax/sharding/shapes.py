"""Shapes of everything that a training step takes, placed on a mesh that need not exist: nothing is allocated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import ParamSpec
from griffin_core.schedules import TrainerOptions
from griffin_core_jax import optimizer
from griffin_core_jax.layout import Row, tree
from griffin_core_jax.sharding.table import batch_spec, param_shardings
from griffin_core_jax.sharding.training import optimizer_shardings


def abstract_params(config: GriffinConfig, mesh: Mesh) -> dict[str, Any]:
    """The native float32 parameters as shapes."""

    def leaf(specs: tuple[ParamSpec, ...], row: Row | None) -> jax.ShapeDtypeStruct:
        shape = specs[0].shape
        if row is not None:
            shape = (len(specs), *(shape[::-1] if row.transposed else shape))
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    placed: dict[str, Any] = _place(tree(config, leaf), param_shardings(config, mesh))
    return placed


def abstract_batch(mesh: Mesh, rows: int, time: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Tokens, targets and positions [rows, time] as shapes."""
    where = NamedSharding(mesh, batch_spec())
    struct = jax.ShapeDtypeStruct((rows, time), jnp.int32, sharding=where)
    return dict.fromkeys(("tokens", "targets", "positions"), struct)


def abstract_step(
    config: GriffinConfig, mesh: Mesh, options: TrainerOptions, rows: int, time: int
) -> tuple[Any, Any, dict[str, jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]:
    """Arguments of ``make_train_step``'s function: parameters, optimiser state, batch, rate."""
    params = abstract_params(config, mesh)
    state = jax.eval_shape(lambda given: optimizer.init_optimizer(config, options, given), params)
    rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    state = _place(state, optimizer_shardings(config, mesh, options, params))
    return params, state, abstract_batch(mesh, rows, time), rate


def _place(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
