"""Large arrays in pieces of a few megabytes: read in row-major order whatever their strides, and written back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from griffin_core.shapes import DTYPES, Array

BLOCK = 1 << 22
"""Elements converted, checked, hashed and written at a time."""
_TILE = 128


def blocks(array: Array, dtype: str) -> Iterator[Array]:
    """The values of ``array``, whatever its strides, in row-major order and in ``dtype``: pieces of a few megabytes."""
    array = np.asarray(array)
    if not array.flags.c_contiguous:
        yield from (block for _, block in row_blocks(array, dtype))
        return
    flat = array.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        yield _cast(flat[start : start + BLOCK], dtype)


def row_blocks(array: Array, dtype: str) -> Iterator[tuple[int, Array]]:
    """The same in pieces of whole rows of axis 0, each with the number of its first row."""
    array = np.asarray(array)
    rows = max(1, BLOCK * array.shape[0] // max(1, array.size))
    for start in range(0, array.shape[0], rows):
        yield start, _cast(_gathered(array[start : start + rows]), dtype)


def scatter(block: Array, view: Array) -> None:
    """Write a contiguous block into a view of the same shape; into a transposed matrix in tiles."""
    if view.ndim != 2 or view.strides[1] <= view.strides[0]:
        view[...] = block
        return
    for i in range(0, view.shape[0], _TILE):
        for j in range(0, view.shape[1], _TILE):
            view[i : i + _TILE, j : j + _TILE] = block[i : i + _TILE, j : j + _TILE]


def _cast(piece: Array, dtype: str) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is reported by name, as an infinity; so is NaN
        return np.ascontiguousarray(piece).astype(DTYPES[dtype], copy=False)


def _gathered(view: Array) -> Array:
    """A contiguous copy; of a transposed matrix in tiles, which is several times faster than in rows."""
    if view.ndim != 2 or view.strides[1] <= view.strides[0]:
        return np.ascontiguousarray(view)
    found = np.empty(view.shape, view.dtype)
    for i in range(0, view.shape[0], _TILE):
        for j in range(0, view.shape[1], _TILE):
            found[i : i + _TILE, j : j + _TILE] = view[i : i + _TILE, j : j + _TILE]
    return found
