"""Moving padding to the ends of rows, and back."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from griffin_core.checks import PAD


def compaction(positions: Array) -> Array:
    """int32 [b t]: the order that moves each row's padding to its end."""
    return jnp.argsort((positions == PAD).astype(jnp.int8), axis=1, stable=True).astype(jnp.int32)


def gather_time(x: Array, order: Array) -> Array:
    """x [b t ...] with each row's tokens in ``order``."""
    return jnp.take_along_axis(x, order.reshape(*order.shape, *(1,) * (x.ndim - 2)), axis=1)


def scatter_time(x: Array, order: Array) -> Array:
    """The inverse of ``gather_time``."""
    return gather_time(x, jnp.argsort(order, axis=1).astype(jnp.int32))
