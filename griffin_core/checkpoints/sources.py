"""What a checkpoint's tensors look like to a reader, whatever file format holds them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from griffin_core.shapes import DTYPES, Array


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as it is stored: name, dtype by name, shape, and its file ("" where the format spreads it)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * np.dtype(DTYPES.get(self.dtype, self.dtype)).itemsize


class TensorSource(Protocol):
    """An opened store: what is in it is known, a value is read when it is asked for."""

    @property
    def stored(self) -> Mapping[str, StoredTensor]:
        """Every tensor by name, from metadata alone."""

    def get(self, name: str) -> Array:
        """The values in the stored dtype; bfloat16 is that of ml_dtypes."""

    def check(self) -> None:
        """Compare the data with the format's own checksums, where it has some (reads everything).

        Raises:
            CheckpointError: naming what is damaged.
        """


class Chosen:
    """Some of a source's tensors."""

    def __init__(self, source: TensorSource, fits: Callable[[str], bool]) -> None:
        self.stored: Mapping[str, StoredTensor] = {name: t for name, t in source.stored.items() if fits(name)}
        self.get = source.get
        self.check = source.check


class Unprefixed:
    """A source whose names all begin with the same words, without them."""

    def __init__(self, source: TensorSource, prefix: str) -> None:
        self._source = source
        self._prefix = prefix
        self.stored: Mapping[str, StoredTensor] = {
            name.removeprefix(prefix): replace(tensor, name=name.removeprefix(prefix))
            for name, tensor in source.stored.items()
        }
        self.check = source.check

    def get(self, name: str) -> Array:
        """The values under the shorter name."""
        return self._source.get(self._prefix + name)


class Remembering:
    """A source that keeps what it read last, for tensors of which several parameters are parts."""

    def __init__(self, source: TensorSource, count: int) -> None:
        self.stored = source.stored
        self.check = source.check
        self._source = source
        self._latest: deque[tuple[str, Array]] = deque(maxlen=count)

    def get(self, name: str) -> Array:
        """The values, read once as long as no ``count`` others are asked for in between."""
        for known, value in self._latest:
            if known == name:
                return value
        self._latest.append((name, self._source.get(name)))
        return self._latest[-1][1]


class DeferredArray:
    """Shape and dtype of an array that is read when its values are needed; NumPy takes it as an array."""

    def __init__(self, shape: tuple[int, ...], dtype: str, read: Callable[[], Array]) -> None:
        self.shape = shape
        self.dtype = np.dtype(DTYPES[dtype])
        self.size = math.prod(shape)
        self.nbytes = self.size * self.dtype.itemsize
        self._read = read

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The values. NumPy calls it."""
        found = np.asarray(self._read(), dtype)
        return found.copy() if copy else found

    def astype(self, dtype: Any) -> Array:
        """A fresh array of the values in a dtype."""
        return np.array(self, dtype)
