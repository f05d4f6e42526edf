"""From an operation's call to the kernel that runs it, and its gradient from the kernel's record."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from griffin_core import registry
from griffin_core.checks import check_starts
from griffin_core.errors import InputError
from griffin_core.protocol import Kernel, KernelCall
from griffin_core_keras.tf.arrays import dtype_name, is_concrete, is_floating
from griffin_core_keras.tf.devices import platform
from griffin_core_keras.tf.gradients import own_gradient
from griffin_core_keras.tf.shapes import check_shapes

BACKEND = "keras"
UNKNOWN = -1
"""What a kernel's ``supports`` sees of an axis whose length a traced function does not know."""
_MARKS = {"positions": tf.int32, "reset": tf.bool}


def describe(arrays: Mapping[str, Any], packed: bool = False) -> KernelCall:
    """The plain facts of a call. Gradients may always be asked for: nobody knows before a tape ends."""
    present = {name: x for name, x in arrays.items() if x is not None}
    shapes = {name: tuple(UNKNOWN if n is None else n for n in x.shape) for name, x in present.items()}
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
    """An operation that gets checked tensors, and ``starts`` as numbers.

    Raises:
        InputError: shapes do not fit, or ``starts`` is traced.
    """
    signature = inspect.signature(plain)

    @functools.wraps(plain)
    def call(*args: Any, **options: Any) -> Any:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        starts, kernel = arguments.pop("starts"), arguments.pop("kernel")
        cuts = None if starts is None else read_starts(starts)
        check_shapes(plain.__name__, arguments, cuts)
        return plain(**{name: _tensor(name, x) for name, x in arguments.items()}, starts=cuts, kernel=kernel)

    return call


def run_kernel(kernel: Kernel, *inputs: Any) -> Any:
    """The kernel's outputs, differentiable by its own VJP where it has one, else by TensorFlow."""
    if kernel.vjp is None:
        return kernel.forward(*inputs)
    leaves, pull = tf.nest.flatten(inputs), kernel.vjp
    wanted = [index for index, leaf in enumerate(leaves) if is_floating(leaf)]

    @own_gradient
    def run(*floats: tf.Tensor) -> tuple[Any, Callable[..., list[Any]]]:
        filled = dict(zip(wanted, floats, strict=True))
        given = tf.nest.pack_sequence_as(inputs, [filled.get(index, leaf) for index, leaf in enumerate(leaves)])
        outputs = tuple(kernel.forward(*given))

        def backward(*cotangents: tf.Tensor) -> list[Any]:
            found = pull(*given, *outputs, *cotangents)
            flat = [part for x, g in zip(given, found, strict=True) for part in _like(x, g)]
            return [flat[index] for index in wanted]

        return outputs, backward

    return run(*(leaves[index] for index in wanted))


def by_sequence(
    operation: Callable[..., tuple[tf.Tensor, ...]],
    starts: Sequence[int],
    timed: Sequence[tf.Tensor | None],
    per_row: Sequence[tf.Tensor | None],
) -> tuple[tf.Tensor, ...]:
    """Run an operation on each sequence packed in one row; this is what ``starts`` means.

    Args:
        operation: called with the pieces of ``timed``, then those of ``per_row``.
        starts: n+1 numbers.
        timed: [1 t ...] each, cut along time.
        per_row: [n ...] each, cut along axis 0.

    Returns:
        The first output joined along time, the others along axis 0.

    Raises:
        InputError: ``starts`` does not cut one row into sequences.
    """
    first = next(x for x in timed if x is not None)
    if first.shape[0] is None or first.shape[1] is None:
        raise InputError(f"starts is given with x of shape {tuple(first.shape)}; packed rows need a known shape")
    check_starts(starts, first.shape[0], first.shape[1])
    pieces = []
    for row, (start, stop) in enumerate(itertools.pairwise(starts)):
        parts = [None if x is None else x[:, start:stop] for x in timed]
        states = [None if x is None else x[row : row + 1] for x in per_row]
        pieces.append(operation(*parts, *states))
    outputs = list(zip(*pieces, strict=True))
    return (tf.concat(outputs[0], axis=1), *(tf.concat(rest, axis=0) for rest in outputs[1:]))


def read_starts(starts: Any) -> list[int]:
    """The cuts as numbers.

    Raises:
        InputError: they are traced, so that shapes cannot depend on them.
    """
    if not is_concrete(starts):
        raise InputError("starts is traced; in a tf.function pass it as a NumPy array, or say the same with positions")
    return [int(start) for start in np.asarray(starts)]


def _tensor(name: str, x: Any) -> Any:
    if isinstance(x, Mapping):
        return {key: _tensor(key, value) for key, value in x.items()}
    if x is None:
        return None
    x = tf.convert_to_tensor(x)
    return tf.cast(x, _MARKS[name]) if name in _MARKS else x


def _like(x: Any, gradient: Any) -> list[Any]:
    """The gradient's leaves, one for each of x."""
    count = len(tf.nest.flatten(x))
    return [None] * count if gradient is None else tf.nest.flatten(gradient)
