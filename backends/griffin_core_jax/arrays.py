"""Arrays in and out of JAX, dtypes, and the gradient hook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array as JaxArray

from griffin_core.errors import ConfigError, InputError, nearest
from griffin_core.shapes import DTYPES, Array
from griffin_core_jax.devices import find_device

_NARROW = {"int64": np.int32, "uint64": np.uint32}


def as_dtype(dtype: Any, default: Any = None) -> Any:
    """The dtype of that name; None gives ``default``.

    Raises:
        ConfigError: the name is not one of ``shapes.DTYPES``, or JAX does not compute in it as it is set up.
    """
    if dtype is None:
        return default
    name = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
    if name not in DTYPES:
        raise ConfigError(f"unknown dtype {name!r}; {nearest(name, DTYPES)}")
    if name == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ConfigError("dtype 'float64' needs jax.config.update('jax_enable_x64', True); or choose 'float32'")
    return DTYPES[name]


def from_numpy(x: Any, dtype: str | None = None, device: str | None = None) -> JaxArray:
    """A JAX array with a copy of ``x``.

    Args:
        x: any NumPy array; bfloat16 is that of ml_dtypes. 64-bit integers become 32-bit ones unless JAX is set
            up for 64 bits.
        dtype: a name of ``shapes.DTYPES``, or None to keep the array's.
        device: "cpu", "gpu", "tpu", with ":N" for one of several, or None for JAX's default.

    Raises:
        ConfigError: the dtype is unknown, or is float64 and JAX is not set up for it.
        InputError: an integer does not fit into 32 bits.
        BackendError: there is no such device.
    """
    x = np.asarray(x)
    wanted = as_dtype(dtype if dtype is not None else x.dtype.name if x.dtype.kind in "fV" else None, x.dtype)
    narrow = None if jax.config.jax_enable_x64 else _NARROW.get(x.dtype.name)  # type: ignore[attr-defined]
    if narrow is not None and wanted == x.dtype:
        bounds = np.iinfo(narrow)
        if x.size and not bounds.min <= x.min() <= x.max() <= bounds.max:
            raise InputError(f"integers {x.min()}..{x.max()} do not fit into 32 bits; JAX computes in 32 bits here")
        wanted = narrow
    # A copy of our own: JAX may otherwise share the memory of a NumPy array that is written later.
    fresh = np.array(x, dtype=wanted, order="C")
    return jax.device_put(fresh, None if device is None else find_device(device), may_alias=False)


def to_numpy(x: JaxArray) -> Array:
    """A fresh NumPy array with the values of ``x``; waits for them."""
    return np.array(x)


def is_concrete(*arrays: Any) -> bool:
    """Whether every array has values, so that they can be checked; inside a traced function they have none."""
    return not any(isinstance(x, jax.core.Tracer) for x in arrays)


def dtype_name(x: Any) -> str:
    """The name of an array's dtype: "float32", "int32", ..."""
    return str(jnp.dtype(x.dtype).name)


def vjp(
    f: Callable[..., Any], inputs: Sequence[JaxArray | None], cotangents: Sequence[JaxArray | None]
) -> tuple[JaxArray | None, ...]:
    """Gradients of ``sum(<cotangent, output>)`` with respect to every input of ``f``.

    Args:
        f: takes the inputs positionally, returns an array or a tuple of arrays (None among them is skipped).
        inputs: arrays; integer and absent ones, and what is no array, get no gradient.
        cotangents: one per output of ``f``; None counts as zeros.

    Returns:
        One gradient per input (zeros where the output does not depend on it), None for integer and absent ones.
    """
    wanted = [i for i, x in enumerate(inputs) if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)]

    def on_floats(*values: JaxArray) -> list[JaxArray | None]:
        given = list(inputs)
        for index, value in zip(wanted, values, strict=True):
            given[index] = value
        outputs = f(*given)
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        return [y if y is not None and jnp.issubdtype(y.dtype, jnp.floating) else None for y in outputs]

    outputs, pull = jax.vjp(on_floats, *(inputs[i] for i in wanted))
    seeds = [
        None if y is None else jnp.zeros_like(y) if g is None else g.astype(y.dtype)
        for y, g in zip(outputs, cotangents, strict=True)
    ]
    gradients: list[JaxArray | None] = [None] * len(inputs)
    for index, gradient in zip(wanted, pull(seeds), strict=True):
        gradients[index] = gradient
    return tuple(gradients)
