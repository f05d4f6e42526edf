"""The one comparison of the conformance kit. It raises; it never returns a bool, and nothing loosens it.

A bound is an array: the largest error that a right evaluation in float32 may have at each element
(``bounds`` derives them). On top of it comes what the output dtype itself loses: one rounding to nearest
and, for results below it, the smallest normal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from griffin_core.shapes import DTYPES, SMALLEST_NORMAL, UNIT_ROUNDOFF, Array

U = UNIT_ROUNDOFF["float32"]
"""Unit roundoff of the arithmetic: everything accumulates in float32, whatever the storage."""
TINY = SMALLEST_NORMAL["float32"]

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Mismatch(AssertionError):
    """A property does not hold: two arrays differ by more than they may."""


@dataclass
class Ledger:
    """The closest call so far: the largest error in units of its bound, and where it was."""

    ratio: float = 0.0
    error: float = 0.0
    bound: float = 0.0
    where: str = ""
    ambiguous: int = 0
    notes: list[str] = field(default_factory=list)

    def record(self, ratio: float, error: float, bound: float, where: str) -> None:
        """Keep this comparison if none was closer to its bound."""
        if ratio > self.ratio:
            self.ratio, self.error, self.bound, self.where = ratio, error, bound, where


def dtype_name(dtype: Any) -> str:
    """The name used in configs and messages: "bfloat16" for ml_dtypes' too."""
    dtype = np.dtype(dtype)
    return _NAMES.get(dtype, str(dtype.name))


def rounding(expected: Array, bound: Array, dtype: str) -> Array:
    """What storing in ``dtype`` may add: float32 nothing (its rounding is in the bound), float16 and bfloat16 one."""
    if dtype not in ("float16", "bfloat16"):
        return np.zeros_like(expected)
    return UNIT_ROUNDOFF[dtype] * (np.abs(expected) + bound) + SMALLEST_NORMAL[dtype]


def check_form(got: Array, shape: tuple[int, ...], dtype: str, what: str, call: str) -> None:
    """Raise unless ``got`` has this shape and dtype."""
    if got.shape != tuple(shape):
        raise Mismatch(f"{what} has shape {got.shape}, expected {tuple(shape)}; in {call}")
    if dtype_name(got.dtype) != dtype:
        raise Mismatch(f"{what} is {dtype_name(got.dtype)}, expected {dtype}; in {call}")


def check_finite(got: Array, what: str, call: str) -> None:
    """Raise at the first NaN or infinity."""
    bad = ~np.isfinite(got.astype(np.float64))
    if bad.any():
        index = _first(bad)
        raise Mismatch(f"{what}{list(index)} is {got[index]}, expected a finite number ({bad.sum()} such); in {call}")


def assert_close(
    got: Array, expected: Array, bound: Array | float, *, dtype: str, what: str, call: str, ledger: Ledger | None = None
) -> None:
    """Raise unless every element of ``got`` is within its bound of ``expected``, in the right shape and dtype.

    Args:
        got: what was judged gave.
        expected: the float64 truth.
        bound: largest permitted absolute error, of ``expected``'s shape (or one number); the rounding of
            ``dtype`` is added here.
        dtype: name of the dtype that ``got`` must have.
        what: what is compared, e.g. "y".
        call: the call that gave it, for the message.
        ledger: where the closest call is recorded.

    Raises:
        Mismatch: naming the worst element, both values, the error, the bound and the call.
    """
    check_form(got, expected.shape, dtype, what, call)
    if got.size == 0:
        return
    check_finite(got, what, call)
    bound = np.broadcast_to(np.asarray(bound, np.float64), expected.shape)
    stored = rounding(expected, bound, dtype)
    allowed = bound + stored + TINY
    error = np.abs(got.astype(np.float64) - expected)
    ratio = np.maximum(error - stored, 0.0) / (bound + TINY)  # what arithmetic used up of what arithmetic may
    worst = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    place = f"{what}{[int(i) for i in worst]}"
    if ledger is not None:
        ledger.record(float(ratio[worst]), float(error[worst]), float(allowed[worst]), place)
    if not ratio[worst] <= 1.0:
        raise Mismatch(
            f"{place} is {float(got[worst]):.9g}, expected {expected[worst]:.9g}; off by {error[worst]:.3g}, "
            f"{ratio[worst]:.3g} times the bound {allowed[worst]:.3g}; in {call}"
        )


def assert_same(got: Array, expected: Array, *, what: str, call: str) -> None:
    """Raise unless two arrays hold exactly the same values (NaN equals NaN, and 0 equals -0).

    Raises:
        Mismatch: naming the first element that differs.
    """
    check_form(got, expected.shape, dtype_name(expected.dtype), what, call)
    left, right = got.astype(np.float64), expected.astype(np.float64)
    differs = (left != right) & ~(np.isnan(left) & np.isnan(right))
    if differs.any():
        index = _first(differs)
        raise Mismatch(
            f"{what}{[int(i) for i in index]} is {got[index]!s}, expected exactly {expected[index]!s} "
            f"({int(differs.sum())} of {differs.size} elements differ); in {call}"
        )


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))
