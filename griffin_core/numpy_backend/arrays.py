"""Arrays and dtypes of the numpy backend: its arrays are plain ``numpy.ndarray``."""

from __future__ import annotations

from typing import Any

import numpy as np

from griffin_core.errors import BackendError, ConfigError, nearest
from griffin_core.shapes import DTYPES, Array

NAME = "numpy"


def from_numpy(x: Any, dtype: str | None = None, device: str | None = None) -> Array:
    """A copy of ``x``, in ``dtype`` where one is given.

    Raises:
        ConfigError: the dtype is not one of ``shapes.DTYPES``.
        BackendError: the device is not the CPU.
    """
    check_device(device)
    return np.array(x, dtype=None if dtype is None else as_dtype(dtype))


def to_numpy(x: Array) -> Array:
    """A fresh array, never a view."""
    return np.array(x)


def as_dtype(name: str) -> np.dtype[Any]:
    """The dtype of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in DTYPES:
        raise ConfigError(f"unknown dtype {name!r}; {nearest(name, DTYPES)}")
    return DTYPES[name]


def check_device(device: str | None) -> None:
    """Refuse every device but the CPU.

    Raises:
        BackendError: naming the device.
    """
    if device not in (None, "cpu"):
        raise BackendError(
            f"the numpy backend runs on the cpu, not on {device!r}; leave the device out or choose torch"
        )


def cast_like(values: tuple[Array | None, ...], like: tuple[Array | None, ...]) -> tuple[Array | None, ...]:
    """Each value in the dtype of its counterpart."""
    pairs = zip(values, like, strict=True)
    return tuple(None if v is None or other is None else v.astype(other.dtype) for v, other in pairs)
