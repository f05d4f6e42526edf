"""The optimiser as an optax transformation: AdamW or its schedule-free form, decay by the parameter table."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from optax import contrib

from griffin_core.config import GriffinConfig
from griffin_core.schedules import SCHEDULE_FREE, TrainerOptions
from griffin_core_jax.layout import tree


def decay_mask(config: GriffinConfig) -> dict[str, Any]:
    """A tree of booleans in the form of the parameters: which of them the table lets decay."""
    return tree(config, lambda specs, row: specs[0].decay)


def transformation(
    config: GriffinConfig, options: TrainerOptions, rate: Array | float = 0.0
) -> optax.GradientTransformation:
    """The optimiser that ``options`` name; clipping comes before it (``clipped``).

    The state's form does not depend on ``rate``, so the transformation is made anew where a step is traced, with the
    rate as an argument of the program.

    Args:
        config: its parameter table says which parameters decay.
        options: optimiser, betas, epsilon and weight decay.
        rate: learning rate of the step.
    """
    decay = optax.add_decayed_weights(options.weight_decay, mask=decay_mask(config))
    descent = optax.scale_by_learning_rate(rate)
    if options.optimizer == SCHEDULE_FREE:
        squares = optax.scale_by_rms(options.beta2, options.epsilon, eps_in_sqrt=False, bias_correction=True)
        return contrib.schedule_free(optax.chain(squares, decay, descent), rate, options.beta1)
    return optax.chain(optax.scale_by_adam(options.beta1, options.beta2, options.epsilon), decay, descent)


def clipped(options: TrainerOptions, grads: Any, norm: Array) -> Any:
    """The gradients, scaled down where their global norm is above the clipping norm."""
    limit = options.clip_norm
    if not limit:
        return grads
    scale = jnp.where(norm > limit, limit / norm, 1.0)
    return jax.tree.map(lambda grad: grad * scale, grads)


def init_optimizer(config: GriffinConfig, options: TrainerOptions, params: Any) -> Any:
    """The optimiser's state before the first step; shares no array with ``params``."""
    return transformation(config, options).init(params)


def evaluation_params(options: TrainerOptions, params: Any, opt_state: Any) -> Any:
    """The parameters to evaluate and to keep: those trained, or their average where the optimiser is schedule-free."""
    if options.optimizer != SCHEDULE_FREE:
        return params
    average = contrib.schedule_free_eval_params(opt_state, params)
    started = opt_state.step_count > 1  # before the first step the formula is the identity but for rounding
    return jax.tree.map(lambda mean, given: jnp.where(started, mean, given), average, params)
