"""What ``griffin bench`` needs from the numpy backend: the same names as a backend's own ``benchmarks`` module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from griffin_core.benchmarks.products import INPUT_GRADIENT, WEIGHT_GRADIENT, Product
from griffin_core.config import GriffinConfig
from griffin_core.shapes import Array

Call = Callable[[], object]


def products(listing: Sequence[Product], dtype: str, params: Any) -> Call:
    """A call that runs the products with ``np.matmul``, in float64 as the backend does (so not on ``params``)."""
    made: dict[tuple[Any, ...], Array] = {}

    def operand(owner: str, *shape: int) -> Array:
        return made.setdefault((owner, *shape), np.ones(shape))

    pairs = []
    for p in listing:
        left = (
            operand("left", p.batch, p.k, p.m).mT if p.form == WEIGHT_GRADIENT else operand("left", p.batch, p.m, p.k)
        )
        across = p.form in (INPUT_GRADIENT, WEIGHT_GRADIENT)
        right = operand(p.weight or "right", p.batch, *((p.k, p.n) if across else (p.n, p.k)))
        pairs.append((left, right if across else right.mT))

    def run() -> None:
        for left, right in pairs:
            np.matmul(left, right)

    return run


def copy(moved: int) -> Call:
    """A call that makes a copy in new memory and so moves ``moved`` bytes, reads and writes counted."""
    return np.ones(moved // 8, np.float32).copy


@contextmanager
def threads(count: int) -> Iterator[None]:
    """NumPy's loops run on one thread; its matrix library keeps its own number."""
    yield


def matrix_units(dtype: str) -> str | None:
    """None for float32; the backend computes every other dtype by widening."""
    return None if dtype in ("float32", "float64") else f"the numpy backend computes {dtype} in float64"


def versions() -> dict[str, str]:
    """NumPy's version."""
    return {"numpy": np.__version__}


def peers(path: str, config: GriffinConfig, batch: int, tokens: int, context: int) -> list[tuple[str, Call]]:
    """None: there is no other NumPy implementation."""
    return []
