"""Tensors in and out of TensorFlow, dtypes, sizes, and the gradient hook."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from griffin_core.errors import ConfigError, nearest
from griffin_core.shapes import DTYPES, Array
from griffin_core_keras.tf.devices import find_device

Size = int | tf.Tensor
"""An axis's length: a number where the shape is known, else a scalar int32 tensor."""


def as_dtype(dtype: Any, default: Any = None) -> Any:
    """The TensorFlow dtype of that name; None gives ``default``.

    Raises:
        ConfigError: the name is not one of ``shapes.DTYPES``.
    """
    if dtype is None:
        return default
    name = dtype if isinstance(dtype, str) else tf.as_dtype(dtype).name
    if name not in DTYPES:
        raise ConfigError(f"unknown dtype {name!r}; {nearest(name, DTYPES)}")
    return tf.as_dtype(name)


def from_numpy(x: Any, dtype: str | None = None, device: str | None = None) -> tf.Tensor:
    """A tensor with a copy of ``x``.

    Args:
        x: any NumPy array; bfloat16 is that of ml_dtypes.
        dtype: a name of ``shapes.DTYPES``, or None to keep the array's.
        device: "cpu", "gpu", with ":N" for one of several, or None for TensorFlow's default.

    Raises:
        ConfigError: the dtype is unknown.
        BackendError: there is no such device.
    """
    x = np.asarray(x)
    wanted = as_dtype(dtype, tf.as_dtype(x.dtype)).as_numpy_dtype
    # A copy of our own: TensorFlow may otherwise share the memory of a NumPy array that is written later.
    fresh = np.array(x, dtype=wanted, order="C")
    with contextlib.nullcontext() if device is None else tf.device(find_device(device)):
        return tf.identity(tf.convert_to_tensor(fresh))


def to_numpy(x: Any) -> Array:
    """A fresh NumPy array with the values of ``x``; waits for them."""
    return np.array(x.numpy() if hasattr(x, "numpy") else x)


def is_concrete(*arrays: Any) -> bool:
    """Whether every array has values, so that they can be checked; inside a traced function they have none."""
    return not any(tf.is_symbolic_tensor(x) for x in arrays if tf.is_tensor(x))


def dtype_name(x: Any) -> str:
    """The name of an array's dtype: "float32", "int32", ..."""
    return str(tf.as_dtype(x.dtype).name)


def is_floating(x: Any) -> bool:
    """Whether x is an array of numbers that have a gradient."""
    return hasattr(x, "dtype") and bool(tf.as_dtype(x.dtype).is_floating)


def wide_dtype(x: Any) -> tf.DType:
    """What sums and recurrences run in: float32, or float64 for float64 inputs."""
    return tf.float64 if tf.as_dtype(x.dtype) == tf.float64 else tf.float32


def sizes(x: tf.Tensor) -> list[Size]:
    """The length of every axis."""
    known = x.shape.as_list()
    if None not in known:
        return list(known)
    found = tf.shape(x)
    return [found[axis] if size is None else size for axis, size in enumerate(known)]


def vjp(
    f: Callable[..., Any], inputs: Sequence[tf.Tensor | None], cotangents: Sequence[tf.Tensor | None]
) -> tuple[tf.Tensor | None, ...]:
    """Gradients of ``sum(<cotangent, output>)`` with respect to every input of ``f``.

    Args:
        f: takes the inputs positionally, returns a tensor or a tuple of tensors (None among them is skipped).
        inputs: tensors; integer and absent ones, and what is no tensor, get no gradient.
        cotangents: one per output of ``f``; None counts as zeros.

    Returns:
        One gradient per input (zeros where the output does not depend on it), None for integer and absent ones.
    """
    given = [tf.convert_to_tensor(x) if is_floating(x) else x for x in inputs]
    wanted = [x for x in given if is_floating(x)]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(wanted)
        outputs = f(*given)
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    used = [(y, g) for y, g in zip(outputs, cotangents, strict=True) if g is not None and is_floating(y)]
    seeds = [tf.cast(g, y.dtype) for y, g in used]
    found = tape.gradient([y for y, _ in used], wanted, seeds, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    gradients = iter(tf.convert_to_tensor(g) for g in found)
    return tuple(next(gradients) if is_floating(x) else None for x in given)
