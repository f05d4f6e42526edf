"""From an operation's call to the kernel that runs it, and its gradient from the kernel's record."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from griffin_core import registry
from griffin_core.checks import check_starts
from griffin_core.errors import InputError
from griffin_core.protocol import Kernel, KernelCall
from griffin_core_jax.arrays import dtype_name, is_concrete
from griffin_core_jax.devices import platform, targeting

BACKEND = "jax"


def describe(arrays: Mapping[str, Any], packed: bool = False) -> KernelCall:
    """The plain facts of a call. Gradients may always be asked for: nobody knows before a trace ends."""
    present = {name: x for name, x in arrays.items() if x is not None}
    shapes = {name: tuple(x.shape) for name, x in present.items()}
    dtypes = {name: dtype_name(x) for name, x in present.items()}
    return KernelCall(shapes, dtypes, platform(*present.values()), packed=packed, needs_grad=True)


def choose(op: str, kernel: str | None, arrays: Mapping[str, Any]) -> Kernel | None:
    """The kernel for a call, or None when the operation is to be composed.

    Raises:
        KernelNotSupported: a named kernel does not exist or cannot run this call.
    """
    return registry.select_kernel(BACKEND, op, describe(arrays), kernel)


def choose_packed(op: str, kernel: str | None, arrays: Mapping[str, Any]) -> Kernel | None:
    """The kernel of ``op`` that runs packed sequences in one call, or None (``registry.packed_kernel``)."""
    return registry.packed_kernel(BACKEND, op, describe(arrays, packed=True), kernel)


def operation(plain: Callable[..., Any]) -> Callable[..., Any]:
    """An operation as one compiled program for each shape and kernel.

    What decides about the program besides shapes (the kernel's name, the kernels there are, where it runs) is settled
    outside the trace and part of its key.
    """
    signature = inspect.signature(plain)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def compiled(wanted: Wanted, cuts: tuple[int, ...] | None, arguments: dict[str, Any]) -> Any:
        with targeting(wanted.platform):
            return plain(**arguments, starts=cuts, kernel=wanted.kernel)

    @functools.wraps(plain)
    def call(*args: Any, **options: Any) -> Any:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        starts, kernel = arguments.pop("starts"), arguments.pop("kernel")
        cuts = None if starts is None else tuple(read_starts(starts))
        return compiled(wanted_now(kernel, arguments["x"]), cuts, arguments)

    return call


class Wanted(NamedTuple):
    """What decides about a program besides shapes: its key in JAX's cache."""

    kernel: str
    kernels: tuple[Kernel, ...]
    platform: str


def wanted_now(kernel: str | None, *arrays: Any) -> Wanted:
    """The kernel asked for by argument or environment, those there are, and where the arrays are."""
    return Wanted(registry.requested_kernel(kernel), registry.kernels(BACKEND), platform(*arrays))


def run_kernel(kernel: Kernel, *inputs: Any) -> Any:
    """The kernel's outputs, differentiable by its own VJP where it has one, else by JAX."""
    return kernel.forward(*inputs) if kernel.vjp is None else _differentiable(kernel)(*inputs)


@functools.lru_cache(maxsize=256)
def _differentiable(kernel: Kernel) -> Callable[..., Any]:
    @jax.custom_vjp
    def run(*inputs: Any) -> Any:
        return tuple(kernel.forward(*inputs))

    def forward(*inputs: Any) -> tuple[Any, Any]:
        outputs = tuple(kernel.forward(*inputs))
        return outputs, (inputs, outputs)

    def backward(saved: Any, cotangents: Any) -> tuple[Any, ...]:
        inputs, outputs = saved
        return tuple(pull(*inputs, *outputs, *cotangents))

    pull = kernel.vjp
    run.defvjp(forward, backward)
    return run


def by_sequence(
    operation: Callable[..., tuple[Array, ...]],
    starts: Array | Sequence[int],
    timed: Sequence[Array | None],
    per_row: Sequence[Array | None],
) -> tuple[Array, ...]:
    """Run an operation on each sequence packed in one row; this is what ``starts`` means.

    Args:
        operation: called with the pieces of ``timed``, then those of ``per_row``.
        starts: int [n+1], values known (not traced).
        timed: [1 t ...] each, cut along time.
        per_row: [n ...] each, cut along axis 0.

    Returns:
        The first output joined along time, the others along axis 0.

    Raises:
        InputError: ``starts`` does not cut one row into sequences, or is traced.
    """
    cuts = read_starts(starts)
    first = next(x for x in timed if x is not None)
    check_starts(cuts, first.shape[0], first.shape[1])
    pieces = []
    for row, (start, stop) in enumerate(itertools.pairwise(cuts)):
        parts = [None if x is None else x[:, start:stop] for x in timed]
        states = [None if x is None else x[row : row + 1] for x in per_row]
        pieces.append(operation(*parts, *states))
    outputs = list(zip(*pieces, strict=True))
    return (jnp.concatenate(outputs[0], axis=1), *(jnp.concatenate(rest, axis=0) for rest in outputs[1:]))


def read_starts(starts: Array | Sequence[int]) -> list[int]:
    """The cuts as numbers.

    Raises:
        InputError: they are traced, so that shapes cannot depend on them.
    """
    if not is_concrete(starts):
        raise InputError("starts is traced; inside jit pass it as a NumPy array, or say the same with positions")
    return [int(start) for start in np.asarray(starts)]
