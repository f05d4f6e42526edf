"""Matrix products: float32 accumulation always, and full float32 products where the compute dtype is float32.

Processors are the reason for most of what is here. XLA's products want their operands row by row there, so each
product, the gradients' among them, is stated so that the narrower operand is the one to be transposed.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from griffin_core_jax.devices import platform
from griffin_core_jax.scan.loop import wide_dtype

_DENSE = "bti,io->bto"


def einsum(spec: str, left: Array, right: Array) -> Array:
    """The sum in float32 (float64 for float64); ``right`` is rounded to ``left``'s dtype first.

    The rows of ``left`` are the rows of the product that is computed. (``jnp.einsum`` may exchange the operands,
    which costs a processor two transpositions of whole activations.) Gradients have the dtypes of what they belong
    to; like ``right``, the cotangent is rounded to ``left``'s dtype, except on a processor.

    Args:
        spec: "rows,columns->result", every letter once in each; "..." is not known. A letter that both operands
            share and the result lacks is summed; one that all three have is a batch of products.
    """
    return _einsum(spec, platform(), left, right)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _einsum(spec: str, where: str, left: Array, right: Array) -> Array:
    """``where`` is an argument because the backward pass may be traced where nothing says what it is for."""
    return _product(spec, where, left, right.astype(left.dtype))


def _einsum_forward(spec: str, where: str, left: Array, right: Array) -> tuple[Array, tuple[Array, Array]]:
    return _einsum(spec, where, left, right), (left, right)


def _einsum_backward(spec: str, where: str, saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    left, right = saved
    operands, result = spec.split("->")
    rows, columns = operands.split(",")
    narrow = right.astype(left.dtype)
    if where == "cpu":
        left, narrow = left.astype(cotangent.dtype), narrow.astype(cotangent.dtype)
    else:
        cotangent = cotangent.astype(left.dtype)
    dleft = _product(f"{result},{columns}->{rows}", where, cotangent, narrow)
    dright = _narrow_first((rows, left), (result, cotangent), columns, where)
    return dleft.astype(saved[0].dtype), dright.astype(right.dtype)


_einsum.defvjp(_einsum_forward, _einsum_backward)


def dense(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """x [b t i] times kernel [i o], plus bias [o], in x's dtype."""
    y = einsum(_DENSE, x, kernel)
    return (y if bias is None else y + bias.astype(y.dtype)).astype(x.dtype)


def block_diagonal(x: Array, weight: Array) -> Array:
    """Each of h blocks of x [b t h*k] times its own matrix, from the right: weight [h k k]. Float32 [b t h*k]."""
    if platform() == "cpu":
        return _by_block(x, weight)
    return einsum("bthk,hkj->bthj", x.reshape(*x.shape[:2], *weight.shape[:2]), weight).reshape(x.shape)


@jax.custom_vjp
def _by_block(x: Array, weight: Array) -> Array:
    """One product a block: a batched one would transpose all of x, and its result, on a processor."""
    parts = zip(_blocks(x, weight), weight.astype(x.dtype), strict=True)
    return jnp.concatenate([_product(_DENSE, "cpu", part, kernel) for part, kernel in parts], axis=-1)


def _by_block_forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return _by_block(x, weight), (x, weight)


def _by_block_backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, weight = saved
    parts = zip(_blocks(x, weight), weight, _blocks(lax.optimization_barrier(cotangent), weight), strict=True)
    found = [_einsum_backward(_DENSE, "cpu", (part, kernel), back) for part, kernel, back in parts]
    dx, dweight = zip(*found, strict=True)
    return jnp.concatenate(dx, axis=-1), jnp.stack(dweight)


_by_block.defvjp(_by_block_forward, _by_block_backward)


def _product(spec: str, where: str, left: Array, right: Array) -> Array:
    """``einsum`` of operands of one dtype.

    XLA's processor backend has no product of narrow operands with a wide result in general, so there the operands
    are widened, which is exact.
    """
    wide = wide_dtype(left)
    if left.dtype != wide and where == "cpu":
        left, right = left.astype(wide), right.astype(wide)
    operands, result = spec.split("->")
    rows, columns = operands.split(",")
    shared = [letter for letter in rows if letter in columns]
    batch = [letter for letter in shared if letter in result]
    summed = [letter for letter in shared if letter not in result]
    found = lax.dot_general(
        left,
        right,
        (_axes(rows, columns, summed), _axes(rows, columns, batch)),
        precision=lax.Precision.HIGHEST if left.dtype == wide else lax.Precision.DEFAULT,
        preferred_element_type=wide,
    )
    order = batch + [letter for letter in rows + columns if letter not in shared]
    return lax.transpose(found, [order.index(letter) for letter in result])


def _narrow_first(one: tuple[str, Array], other: tuple[str, Array], result: str, where: str) -> Array:
    """The product of two operands over their rows; the one with fewer columns stands first, and is transposed."""

    def width(letters: str, x: Array, against: str) -> int:
        return math.prod(size for letter, size in zip(letters, x.shape, strict=True) if letter not in against)

    (letters, x), (others, y) = one, other
    if width(letters, x, others) > width(others, y, letters):
        (letters, x), (others, y) = other, one
    return _product(f"{letters},{others}->{result}", where, x, y)


def _blocks(x: Array, weight: Array) -> list[Array]:
    return jnp.split(x, weight.shape[0], axis=-1)


def _axes(rows: str, columns: str, letters: list[str]) -> tuple[list[int], list[int]]:
    return [rows.index(letter) for letter in letters], [columns.index(letter) for letter in letters]
