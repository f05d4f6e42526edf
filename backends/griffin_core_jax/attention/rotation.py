"""Rotary positions from two tables, exact at long positions (``griffin_core.rotary``)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from griffin_core.rotary import RADIX, rotary_tables
from griffin_core_jax.scan.loop import wide_dtype


def rotate(x: Array, positions: Array) -> Array:
    """The first half of each head rotated, in split-half pairs (i, i + e/4).

    Args:
        x: [b t e] or [b t n e].
        positions: int [b t] within each token's document; those of padding do not matter.

    Returns:
        The shape and dtype of x.
    """
    quarter, wide = x.shape[-1] // 4, wide_dtype(x)
    form = (*positions.shape, *(1,) * (x.ndim - 3), quarter)
    cos, sin = (part.reshape(form) for part in angles(positions, x.shape[-1]))
    first, second = x[..., :quarter].astype(wide), x[..., quarter : 2 * quarter].astype(wide)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate([*(part.astype(x.dtype) for part in turned), x[..., 2 * quarter :]], axis=-1)


def angles(positions: Array, head_dim: int) -> tuple[Array, Array]:
    """(cos, sin) float32 [b t e/4] of each position's angles, as the sum of a coarse and a fine angle."""
    coarse, fine = (jnp.asarray(table) for table in rotary_tables(head_dim))
    at = jnp.maximum(positions, 0)
    far, near = coarse[at // RADIX], fine[at % RADIX]  # [b t 2 e/4]
    cos = far[..., 0, :] * near[..., 0, :] - far[..., 1, :] * near[..., 1, :]
    sin = far[..., 1, :] * near[..., 0, :] + far[..., 0, :] * near[..., 1, :]
    return cos, sin
