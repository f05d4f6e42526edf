"""How a call's arrays lie in memory: whole, or views of larger ones with NaN around them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from griffin_core.shapes import DTYPES, Array

TAIL = "tail"
"""A layout beside those of ``cases.LAYOUTS``: the front of longer arrays, NaN behind it."""


def place(arrays: ModuleType, value: Array, layout: str) -> Any:
    """``value`` as a native array that lies in memory in a given way, with NaN (or garbage) around it."""
    if layout == "contiguous" or value.ndim < 2 or not value.size:
        return arrays.from_numpy(value)
    if layout == TAIL:
        return arrays.from_numpy(_around(value, {1: (0, 3)}))[:, : value.shape[1]]
    if layout == "transposed":
        native = arrays.from_numpy(np.ascontiguousarray(value.swapaxes(0, 1)))
        return native.swapaxes(0, 1) if hasattr(native, "swapaxes") else arrays.from_numpy(value)
    wide = _around(value, {value.ndim - 1: (1, 2)})
    if layout == "channels":
        return arrays.from_numpy(wide)[..., 1 : 1 + value.shape[-1]]
    spread = np.repeat(value, 2, axis=-1)
    spread[..., 1::2] = _garbage(value.dtype)
    return arrays.from_numpy(spread)[..., ::2]


def _around(value: Array, widths: dict[int, tuple[int, int]]) -> Array:
    """``value`` inside a larger array of garbage."""
    pads = [widths.get(axis, (0, 0)) for axis in range(value.ndim)]
    out = np.full([n + sum(p) for n, p in zip(value.shape, pads, strict=True)], _garbage(value.dtype), value.dtype)
    out[tuple(slice(p[0], p[0] + n) for n, p in zip(value.shape, pads, strict=True))] = value
    return out


def _garbage(dtype: np.dtype) -> Any:
    return np.nan if dtype in DTYPES.values() else True if dtype.kind == "b" else 0
