"""One training step over a mesh: every device differentiates its own part of the loss, then gradients are summed.

The gradient is written by hand, like the forward pass (``local``). The optimiser works on whole arrays again, each
split as its parameter is; the compiler adds the one sum that the gradient's norm needs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from griffin_core.config import GriffinConfig
from griffin_core.schedules import TrainerOptions
from griffin_core_jax import optimizer, step
from griffin_core_jax.arrays import as_dtype
from griffin_core_jax.loss import PIECE_BYTES, cross_entropy_sum
from griffin_core_jax.model import Wrap
from griffin_core_jax.remat import BLOCK, OUTPUTS, wrap_layers
from griffin_core_jax.sharding.collectives import enter
from griffin_core_jax.sharding.local import Params, local_head, local_hidden
from griffin_core_jax.sharding.mesh import check_batch, check_mesh
from griffin_core_jax.sharding.table import (
    DATA,
    FSDP,
    SEQUENCE,
    TENSOR,
    Placement,
    batch_spec,
    like_params,
    param_shardings,
    param_specs,
    placements,
)

Batch = Mapping[str, Array]
TOKENS = (DATA, FSDP, SEQUENCE)
"""Mesh axes whose devices see different tokens."""


def loss(
    config: GriffinConfig,
    mesh: Mesh,
    params: Params,
    batch: Batch,
    *,
    dtype: Any = "float32",
    kernel: str | None = None,
    piece_bytes: int = PIECE_BYTES,
) -> tuple[Array, Array]:
    """``step.loss_fn`` over a mesh, to be traced: (summed loss float32, number of targets int32), whole everywhere."""

    def local(params: Params, batch: Batch) -> tuple[Array, Array]:
        found = _local_loss(config, params, batch, as_dtype(dtype), kernel, None, 1.0, piece_bytes)
        return lax.psum(found, TOKENS), lax.psum(step.count_targets(batch), TOKENS)

    return _over(config, mesh, local, (PartitionSpec(), PartitionSpec()))(params, dict(batch))  # type: ignore[no-any-return]


def gradients(
    config: GriffinConfig,
    mesh: Mesh,
    options: TrainerOptions,
    params: Params,
    batch: Batch,
    *,
    kernel: str | None = None,
    remat: str | None = None,
    piece_bytes: int = PIECE_BYTES,
) -> tuple[Array, Any]:
    """``step.gradients`` over a mesh, to be traced: (mean loss, its gradient, split as the parameters are).

    Args:
        params: native, float32.
        batch: int32 [b t] tokens, targets and positions.
        kernel: name of a kernel for the recurrent operations, or None.
        remat: a policy of ``remat``; None is "outputs" where ``options`` recompute and the width is split, "block"
            where they recompute and it is not, else "none".
        piece_bytes: float32 logits that one device holds at a time.

    Raises:
        ConfigError: the model cannot be split over the mesh.
        InputError: the batch cannot be.
    """
    check_mesh(config, mesh)
    check_batch(config, mesh, tuple(batch["tokens"].shape))
    chosen = (OUTPUTS if mesh.shape[TENSOR] > 1 else BLOCK) if options.checkpoint_activations else "none"
    wrap, dtype = wrap_layers(chosen if remat is None else remat), as_dtype(options.compute_dtype)
    placed = placements(config)

    def local(params: Params, batch: Batch) -> tuple[Array, Any]:
        count = lax.psum(step.count_targets(batch), TOKENS)
        scale = 1.0 / jnp.maximum(count, 1).astype(jnp.float32)

        def part(params: Params) -> Array:
            return _local_loss(config, params, batch, dtype, kernel, wrap, scale, piece_bytes)

        found, grads = jax.value_and_grad(part)(params)
        return lax.psum(found, TOKENS), _sum_gradients(mesh, placed, grads)

    return _over(config, mesh, local, (PartitionSpec(), param_specs(config)))(params, dict(batch))  # type: ignore[no-any-return]


def init_optimizer(config: GriffinConfig, mesh: Mesh, options: TrainerOptions, params: Params) -> Any:
    """The optimiser's state before the first step, each moment split as its parameter is."""
    start = jax.jit(
        lambda given: optimizer.init_optimizer(config, options, given),
        out_shardings=optimizer_shardings(config, mesh, options, params),
    )
    return start(params)


def optimizer_shardings(config: GriffinConfig, mesh: Mesh, options: TrainerOptions, params: Any) -> Any:
    """Shardings in the form of the optimiser's state; ``params`` may be shapes."""
    state = jax.eval_shape(lambda given: optimizer.init_optimizer(config, options, given), params)
    return like_params(config, params, state, mesh)


def make_train_step(
    config: GriffinConfig,
    mesh: Mesh,
    options: TrainerOptions,
    params: Any,
    *,
    kernel: str | None = None,
    remat: str | None = None,
    donate: bool = False,
    piece_bytes: int = PIECE_BYTES,
) -> Callable[..., tuple[Any, Any, dict[str, Array]]]:
    """A compiled ``step.train_step`` over a mesh.

    Args:
        params: the parameters or their shapes; only their form is used.
        kernel, remat, piece_bytes: as in ``gradients``.
        donate: whether the arrays of parameters and optimiser that a step is given are used up by it.

    Returns:
        step(params, opt_state, batch, rate) -> (params, opt_state, figures), to be called with arrays from
        ``shard_params``, ``init_optimizer`` and ``shard_batch``.

    Raises:
        ConfigError: the model cannot be split over the mesh.
    """
    check_mesh(config, mesh)
    how = {"kernel": kernel, "remat": remat, "piece_bytes": piece_bytes}

    def take(params: Params, opt_state: Any, batch: Batch, rate: Array) -> Any:
        found, grads = gradients(config, mesh, options, params, batch, **how)  # type: ignore[arg-type]
        return step.apply_gradients(config, options, params, opt_state, found, grads, rate)

    everywhere, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, batch_spec())
    kept = (param_shardings(config, mesh), optimizer_shardings(config, mesh, options, params))
    return jax.jit(
        take,
        in_shardings=(*kept, rows, everywhere),
        out_shardings=(*kept, everywhere),
        donate_argnums=(0, 1) if donate else (),
    )


def _local_loss(
    config: GriffinConfig,
    params: Params,
    batch: Batch,
    dtype: Any,
    kernel: str | None,
    wrap: Wrap | None,
    scale: Array | float,
    piece_bytes: int,
) -> Array:
    x, _ = local_hidden(config, params, batch["tokens"], batch["positions"], dtype=dtype, kernel=kernel, wrap=wrap)
    head = local_head(config, params, dtype)
    axis = TENSOR if lax.axis_size(TENSOR) > 1 else None
    cap = config.logits_soft_cap
    return cross_entropy_sum(enter(x), head, batch["targets"], cap, scale, piece_bytes=piece_bytes, axis=axis)


def _sum_gradients(mesh: Mesh, placed: Any, grads: Any) -> Any:
    """Gradients summed over every device that saw a part, arrays with the same axes in one exchange."""
    leaves, form = jax.tree.flatten(grads)
    places = jax.tree.leaves(placed, is_leaf=lambda node: isinstance(node, Placement))
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, place in enumerate(places):
        groups[tuple(axis for axis in place.summed if mesh.shape[axis] > 1)].append(index)
    for axes, members in groups.items():
        if axes:
            for index, total in zip(members, lax.psum([leaves[i] for i in members], axes), strict=True):
                leaves[index] = total
    return jax.tree.unflatten(form, leaves)


def _over(config: GriffinConfig, mesh: Mesh, local: Callable[..., Any], out_specs: Any) -> Callable[..., Any]:
    specs = (param_specs(config), batch_spec())
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=out_specs, check_vma=False)  # type: ignore[no-any-return]
