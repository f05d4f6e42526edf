"""What a foreign checkpoint offers: arrays by stored name, described before any of them is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 by name through it
import numpy as np

from griffin_core.shapes import Array


@dataclass(frozen=True)
class StoredTensor:
    """One array as a checkpoint describes it.

    Attributes:
        name: as stored.
        dtype: "float32", "float16", "bfloat16" or another NumPy name.
        shape: as stored.
        file: the file inside the checkpoint that holds it; "" when the format spreads it over several.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class TensorSource(Protocol):
    """An opened checkpoint: ``stored`` by name, and the values of one array at a time."""

    @property
    def stored(self) -> Mapping[str, StoredTensor]:
        """Every array, from headers alone."""

    def get(self, name: str) -> Array:
        """The values of one array, in its stored dtype and shape."""
