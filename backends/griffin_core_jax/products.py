"""Matrix products: float32 accumulation always, and full float32 products where the compute dtype is float32."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from griffin_core_jax.devices import platform
from griffin_core_jax.scan.loop import wide_dtype


def einsum(spec: str, left: Array, right: Array) -> Array:
    """The sum in float32 (float64 for float64); ``right`` is rounded to ``left``'s dtype first.

    XLA's processor backend has no product of narrow operands with a wide result in general, so there the operands
    are widened, which is exact.
    """
    wide, right = wide_dtype(left), right.astype(left.dtype)
    if left.dtype != wide and platform() == "cpu":
        left, right = left.astype(wide), right.astype(wide)
    highest = left.dtype == wide
    return jnp.einsum(
        spec,
        left,
        right,
        precision=lax.Precision.HIGHEST if highest else lax.Precision.DEFAULT,
        preferred_element_type=wide,
    )


def dense(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """x [... i] times kernel [i o], plus bias [o], in x's dtype."""
    y = einsum("...i,io->...o", x, kernel)
    return (y if bias is None else y + bias.astype(y.dtype)).astype(x.dtype)
