"""RMSNorm."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from griffin_core.config import NORM_EPS
from griffin_core_jax.scan.loop import wide_dtype


def rms_norm(x: Array, scale: Array, eps: float = NORM_EPS) -> Array:
    """x / sqrt(mean(x^2) + eps) * (1 + scale) over the last axis, in float32.

    Args:
        x: [b t m].
        scale: [m].

    Returns:
        [b t m] in x's dtype.
    """
    return _rms_norm(x, scale, eps)


@functools.partial(jax.checkpoint, prevent_cse=False)  # the backward pass keeps x alone
def _rms_norm(x: Array, scale: Array, eps: float) -> Array:
    wide = wide_dtype(x)
    values = x.astype(wide)
    mean = jnp.mean(values * values, axis=-1, keepdims=True)
    return (values * lax.rsqrt(mean + eps) * (1.0 + scale.astype(wide))).astype(x.dtype)
