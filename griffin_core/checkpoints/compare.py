"""Are the weights of two checkpoints the same? Tensor by tensor, whatever their formats and dtypes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from griffin_core.checkpoints.blocks import row_blocks
from griffin_core.shapes import DTYPES, SMALLEST_NORMAL, UNIT_ROUNDOFF, Array


@dataclass(frozen=True)
class TensorComparison:
    """One parameter in two checkpoints.

    Attributes:
        name: canonical name.
        dtypes: its dtype in each.
        differing: values that are not the same bits; with unlike dtypes, values that are not each other's rounding.
        largest: the largest absolute difference.
        ulps: the largest difference in units of the last place of the coarser dtype.
    """

    name: str
    dtypes: tuple[str, str]
    differing: int
    largest: float
    ulps: float

    @property
    def same(self) -> bool:
        """Equal bits, or one is the other rounded to its dtype."""
        return self.differing == 0


def compare_tensors(
    one: Mapping[str, Array], other: Mapping[str, Array], progress: Callable[[int], None] | None = None
) -> list[TensorComparison]:
    """Compare parameters of equal names and shapes, in blocks; nothing is held.

    Args:
        one, other: arrays by canonical name, of one config.
        progress: called with the number of bytes just compared.
    """
    return [_compare(name, one[name], other[name], progress) for name in one]


def _compare(name: str, one: Array, other: Array, progress: Callable[[int], None] | None) -> TensorComparison:
    dtypes = one.dtype.name, other.dtype.name
    differing, largest, ulps = 0, 0.0, 0.0
    for (_, a), (_, b) in zip(row_blocks(one, dtypes[0]), row_blocks(other, dtypes[1]), strict=True):
        unlike = _rounded_bits(a, dtypes[1]) != _rounded_bits(b, dtypes[1])
        if dtypes[0] != dtypes[1]:  # either may be the rounded one
            unlike &= _rounded_bits(b, dtypes[0]) != _rounded_bits(a, dtypes[0])
        differing += int(np.count_nonzero(unlike))
        if dtypes[0] != dtypes[1] or unlike.any():
            error, units = _distance(a.astype(np.float64), b.astype(np.float64), dtypes)
            largest, ulps = max(largest, error), max(ulps, units)
        if progress is not None:
            progress(a.nbytes)
    return TensorComparison(name, dtypes, differing, largest, ulps)


def _rounded_bits(values: Array, dtype: str) -> Array:
    """The bits of the values, rounded to a dtype."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.ascontiguousarray(values).astype(DTYPES[dtype], copy=False)
    return rounded.view(np.dtype(f"u{rounded.itemsize}"))


def _distance(a: Array, b: Array, dtypes: tuple[str, str]) -> tuple[float, float]:
    """Largest difference of float64 values, as it is and in units of the last place of the coarser dtype."""
    error = np.abs(a - b)
    size = np.maximum(np.abs(a), np.abs(b))
    unit = np.maximum(*(_last_place(size, dtype) for dtype in dtypes))
    return float(error.max()), float((error / unit).max())


def _last_place(size: Array, dtype: str) -> Array:
    """The distance to the next value of a dtype."""
    return 2.0 * UNIT_ROUNDOFF[dtype] * 2.0 ** np.floor(np.log2(np.maximum(size, SMALLEST_NORMAL[dtype])))
