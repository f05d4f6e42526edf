"""Keras on JAX: the JAX backend's operations and kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from griffin_core_jax import (
    conv1d,
    devices,
    from_numpy,
    gated_scan,
    linear_scan,
    platform,
    rg_lru,
    rms_norm,
    targeting,
    to_numpy,
    vjp,
)
from griffin_core_jax.arrays import dtype_name, is_concrete
from griffin_core_jax.devices import settled
from griffin_core_jax.kernels import KERNELS
from griffin_core_jax.loss import cross_entropy_sum
from griffin_core_jax.products import dense, einsum
from griffin_core_jax.programs import release_programs
from griffin_core_jax.threads import start_with_threads as set_threads
from griffin_core_keras.engines.on_jax_mesh import local_attention, recurrent_middle

__all__ = [
    "COMPILES_SHAPES",
    "KERNELS",
    "KERNELS_OF",
    "compiled",
    "conv1d",
    "dense",
    "devices",
    "dtype_name",
    "from_numpy",
    "gated_scan",
    "gelu_product",
    "is_concrete",
    "linear_scan",
    "local_attention",
    "mean_cross_entropy",
    "platform",
    "project",
    "recurrent_middle",
    "release_programs",
    "rg_lru",
    "rms_norm",
    "set_threads",
    "targeting",
    "to_numpy",
    "vjp",
    "wait",
]

KERNELS_OF = "jax"
"""The backend whose kernels these are."""
COMPILES_SHAPES = True
"""A program is compiled for every shape."""


def gelu_product(gate: Array, x: Array) -> Array:
    """gelu_tanh(gate) * x."""
    return settled(jax.nn.gelu(gate, approximate=True) * x)


def project(x: Array, head: Array) -> Array:
    """x [b t m] times head [v m], transposed: float32 [b t v]."""
    return einsum("btm,vm->btv", x, head)


def mean_cross_entropy(x: Array, head: Array, targets: Array, soft_cap: float | None) -> Array:
    """-log softmax of the capped logits at the targets, averaged over those that are not negative; 0 without any."""
    count = jnp.maximum(jnp.sum(targets >= 0, dtype=jnp.int32), 1)
    return cross_entropy_sum(x, head, targets, soft_cap, 1.0 / count.astype(jnp.float32))


def wait(x: Any) -> None:
    """Until the array has its values."""
    jax.block_until_ready(x)


def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one program for each form of its arguments."""
    return jax.jit(f)
