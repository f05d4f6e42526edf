"""The sums and exchanges of a program that every device runs on its own piece, each with the gradient it needs.

Between sub-blocks the residual stream and its cotangent are whole on every device of ``tensor``. A sub-block is entered
by ``enter`` and left by ``leave``: one sum forward, one backward. Over the other axes each device has its own tokens,
and what it differentiates is its own part of the loss.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from griffin_core_jax.sharding.table import FSDP, TENSOR


def enter(x: Array) -> Array:
    """x, about to be used by ``tensor`` devices that each compute a part: its cotangents are summed."""
    return x if lax.axis_size(TENSOR) == 1 else _enter(x)


def leave(x: Array) -> Array:
    """The sum of x over ``tensor``, in x's dtype; its cotangent is whole on every device already."""
    return x if lax.axis_size(TENSOR) == 1 else _leave(x)


def gather(w: Array, axis: int, dtype: Any) -> Array:
    """A parameter's pieces over ``fsdp`` joined along ``axis`` in ``dtype``; gradients are summed in w's dtype."""
    return w if lax.axis_size(FSDP) == 1 else _gather(w, axis, jnp.dtype(dtype).name, w.dtype.name)


def from_left(x: Array, axis_name: str, axis: int, length: int) -> Array:
    """The ``length`` elements that stand before this device's piece of ``axis``; zeros before the first.

    Each piece that they reach into sends what is needed straight here.
    """
    size, count = x.shape[axis], lax.axis_size(axis_name)
    parts, missing = [], length
    for hop in range(1, count):
        if missing <= 0:
            break
        part = lax.slice_in_dim(x, max(size - missing, 0), size, axis=axis)
        parts.append(lax.ppermute(part, axis_name, [(i, i + hop) for i in range(count - hop)]))
        missing -= size
    shape = list(x.shape)
    shape[axis] = max(missing, 0)
    return jnp.concatenate([jnp.zeros(shape, x.dtype), *reversed(parts)], axis=axis)


@jax.custom_vjp
def _enter(x: Array) -> Array:
    return x


_enter.defvjp(lambda x: (x, None), lambda _, g: (lax.psum(g, TENSOR),))


@jax.custom_vjp
def _leave(x: Array) -> Array:
    return lax.psum(x, TENSOR)


_leave.defvjp(lambda x: (lax.psum(x, TENSOR), None), lambda _, g: (g,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather(w: Array, axis: int, dtype: str, own: str) -> Array:
    return lax.all_gather(w.astype(dtype), FSDP, axis=axis, tiled=True)


def _gather_forward(w: Array, axis: int, dtype: str, own: str) -> tuple[Array, None]:
    return _gather(w, axis, dtype, own), None


def _gather_backward(axis: int, dtype: str, own: str, _: None, g: Array) -> tuple[Array]:
    return (lax.psum_scatter(g.astype(own), FSDP, scatter_dimension=axis, tiled=True),)


_gather.defvjp(_gather_forward, _gather_backward)
