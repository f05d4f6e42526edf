"""One training step as a pure function of arrays, traced by whoever owns them: a trainer, a mesh, a user's loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from griffin_core.config import GriffinConfig
from griffin_core.schedules import TrainerOptions
from griffin_core_jax.arrays import as_dtype
from griffin_core_jax.blocks import Constrain, unconstrained
from griffin_core_jax.loss import PIECE_BYTES, cross_entropy_sum
from griffin_core_jax.model import Params, Wrap, run_hidden
from griffin_core_jax.optimizer import clipped, transformation

Batch = Mapping[str, Array]
"""int32 [b t] tokens, targets (-1: no loss) and positions (-1: padding, at the ends of rows)."""


def loss_fn(
    config: GriffinConfig,
    params: Params,
    batch: Batch,
    *,
    dtype: Any,
    kernel: str | None = None,
    wrap: Wrap | None = None,
    constrain: Constrain = unconstrained,
    scale: Array | float = 1.0,
    piece_bytes: int = PIECE_BYTES,
) -> tuple[Array, Array]:
    """Summed negative log-probability of the targets, and how many there are.

    Args:
        params: native, float32.
        dtype: of the products.
        kernel: name of a kernel for the recurrent operations, or None.
        wrap: stands around each layer (``remat``).
        constrain: called on named activations (``blocks.Constrain``), and on "logits".
        scale: factor on the sum.
        piece_bytes: float32 logits held at a time, over all devices.

    Returns:
        (scale * sum, float32; count, int32). The sum alone is differentiable.
    """
    x, _, _ = run_hidden(
        config,
        params,
        batch["tokens"],
        batch["positions"],
        dtype=as_dtype(dtype),
        kernel=kernel,
        wrap=wrap,
        constrain=constrain,
    )
    head = params["embedding" if config.tie_embeddings else "head"]
    total = cross_entropy_sum(
        x, head, batch["targets"], config.logits_soft_cap, scale, piece_bytes=piece_bytes, constrain=constrain
    )
    return total, count_targets(batch)


def gradients(
    config: GriffinConfig, options: TrainerOptions, params: Params, batch: Batch, **how: Any
) -> tuple[Array, Any]:
    """(mean loss over the batch's targets, its gradient in ``params``).

    Args:
        how: ``kernel``, ``wrap``, ``constrain``, ``piece_bytes`` of ``loss_fn``.
    """
    scale = 1.0 / jnp.maximum(count_targets(batch), 1).astype(jnp.float32)

    def mean(params: Params) -> Array:
        return loss_fn(config, params, batch, dtype=options.compute_dtype, scale=scale, **how)[0]

    return jax.value_and_grad(mean)(params)


def train_step(
    config: GriffinConfig,
    options: TrainerOptions,
    params: Params,
    opt_state: Any,
    batch: Batch,
    rate: Array,
    *,
    kernel: str | None = None,
    wrap: Wrap | None = None,
    constrain: Constrain = unconstrained,
    piece_bytes: int = PIECE_BYTES,
) -> tuple[Any, Any, dict[str, Array]]:
    """One step on the mean loss over the real targets of the whole batch.

    A step whose loss or gradient norm is not finite changes nothing, inside the program.

    Args:
        params: native, float32.
        opt_state: of ``optimizer.init_optimizer``.
        rate: learning rate, float32.

    Returns:
        (params, opt_state, figures): loss, grad_norm (before clipping) as float32, finite as bool.
    """
    how = {"kernel": kernel, "wrap": wrap, "constrain": constrain, "piece_bytes": piece_bytes}
    loss, grads = gradients(config, options, params, batch, **how)
    return apply_gradients(config, options, params, opt_state, loss, grads, rate)


def apply_gradients(
    config: GriffinConfig,
    options: TrainerOptions,
    params: Params,
    opt_state: Any,
    loss: Array,
    grads: Any,
    rate: Array,
    norm: Array | None = None,
) -> tuple[Any, Any, dict[str, Array]]:
    """The second half of ``train_step``: clip and move, or change nothing where something is not finite.

    Args:
        loss: the mean loss.
        grads: its gradient, in the form of ``params``.
        norm: the gradient's global norm where it is known already, or where every device holds a part of ``grads``.

    Returns:
        As ``train_step``.
    """
    norm = optax.tree.norm(grads) if norm is None else norm
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)

    def move(params: Any, opt_state: Any, grads: Any) -> tuple[Any, Any]:
        changes, after = transformation(config, options, rate).update(clipped(options, grads, norm), opt_state, params)
        return optax.apply_updates(params, changes), after

    # A branch, not a selection: XLA would copy every donated array to select from it.
    params, opt_state = lax.cond(finite, move, lambda *kept: kept[:2], params, opt_state, grads)
    return params, opt_state, {"loss": loss, "grad_norm": norm, "finite": finite}


def count_targets(batch: Batch) -> Array:
    """int32: positions that carry a loss."""
    return jnp.sum(batch["targets"] >= 0, dtype=jnp.int32)
