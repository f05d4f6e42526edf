"""Stable elementary functions in float64, and the order of tokens in padded rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from griffin_core.checks import PAD
from griffin_core.shapes import Array

Tap = Callable[[str, Array], Array]
"""A hook on named activations: it may record one, or return another in its place."""

quiet = np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")
"""Decorator: infinities and NaN follow IEEE rules without warnings (a reset must be able to discard them)."""


def no_tap(name: str, value: Array) -> Array:
    """The hook that changes nothing."""
    return value


def wide(x: Any) -> Array:
    """``x`` in float64 (no copy when it is already)."""
    return np.asarray(x, dtype=np.float64)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x) without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softplus(x: Array) -> Array:
    """log(1 + e^x) without overflow."""
    return np.logaddexp(0.0, x)


def gelu_tanh(x: Array) -> Array:
    """The tanh form of GELU, the family's only activation."""
    inner: Array = np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1.0 + np.tanh(inner))


def default_positions(x: Array, fresh: bool) -> Array:
    """int32 [b t] for ``positions=None`` beside x [b t ...]: a new document, or steps that start none."""
    batch, time = x.shape[:2]
    first = 0 if fresh else 1
    return np.broadcast_to(np.arange(first, first + time, dtype=np.int32), (batch, time))


def compaction(positions: Array) -> Array:
    """int64 [b t]: the order that moves each row's padding to its end and keeps the rest in order."""
    return np.argsort(positions == PAD, axis=1, kind="stable")


def gather_time(x: Array, order: Array) -> Array:
    """``x`` [b t ...] with each row's tokens in ``order``."""
    return np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)


def scatter_time(x: Array, order: Array) -> Array:
    """The inverse of ``gather_time``."""
    out = np.empty_like(x)
    np.put_along_axis(out, order.reshape(order.shape + (1,) * (x.ndim - 2)), x, axis=1)
    return out
