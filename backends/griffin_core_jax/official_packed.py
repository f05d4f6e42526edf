"""The msgpack file of older orbax checkpoints: its tree, and where in the file the arrays' bytes stand.

Values are not read: an array is described by its dtype, its shape and byte ranges, which lie within the file.
An array is an extension that holds (shape, dtype, bytes); one beyond a gigabyte is a map of such pieces.
"""

from __future__ import annotations

import itertools
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 by name through it
import numpy as np

from griffin_core.checkpoints.files import named_errors
from griffin_core.errors import CheckpointError

Keys = tuple[str, ...]
"""The path of a leaf in the tree."""

DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "bool"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
"""Of arrays that are read."""

DEPTH = 32
"""Keys of a path at most."""
_RANK, _MOST_LEAVES = 32, 100_000
_ARRAY_CODE = 1
_IN_PIECES = "__msgpack_chunked_array__"

_SHORT = ((0x00, 0x7F, "int"), (0x80, 0x8F, "map"), (0x90, 0x9F, "list"), (0xA0, 0xBF, "text"))
_WITH_SIZE = {
    **{0xC4: ("bytes", 1), 0xC5: ("bytes", 2), 0xC6: ("bytes", 4)},
    **{0xC7: ("extension", 1), 0xC8: ("extension", 2), 0xC9: ("extension", 4)},
    **{0xCC: ("int", 1), 0xCD: ("int", 2), 0xCE: ("int", 4), 0xCF: ("int", 8)},
    **{0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4)},
    **{0xDC: ("list", 2), 0xDD: ("list", 4), 0xDE: ("map", 2), 0xDF: ("map", 4)},
}
_ONE_SIZE = {
    **{0xC0: ("None", 0), 0xC2: ("False", 0), 0xC3: ("True", 0), 0xCA: ("float", 4), 0xCB: ("float", 8)},
    **{0xD0: ("signed int", 1), 0xD1: ("signed int", 2), 0xD2: ("signed int", 4), 0xD3: ("signed int", 8)},
    **{0xD4: ("extension", 1), 0xD5: ("extension", 2), 0xD6: ("extension", 4), 0xD7: ("extension", 8)},
    **{0xD8: ("extension", 16)},
}


@dataclass(frozen=True)
class Packed:
    """An array inside the file: ``ranges`` are (start, stop) of its bytes, row-major and little-endian."""

    dtype: str
    shape: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Other:
    """A leaf that is not an array: what it is, and its value if that is a text or a count."""

    kind: str
    value: str | int | None = None


def read_packed(path: Path) -> dict[Keys, Packed | Other]:
    """Every leaf of the tree by its path.

    Raises:
        CheckpointError: the file cannot be read or is damaged.
    """
    with named_errors(f"read {path}"), path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                reader = _Reader(data)
                leaves = dict(itertools.islice(reader.leaves((), 0), _MOST_LEAVES))
                if reader.at != len(data):
                    raise ValueError(f"{len(data) - reader.at} bytes follow its leaves")
                return _joined(leaves)
        except (ValueError, KeyError, IndexError) as error:
            reason = " ".join(str(error).split())[:100]
            raise CheckpointError(f"{path} is damaged ({reason}); copy the checkpoint again") from error


class _Reader:
    """A place in the file that moves on; anything that reaches beyond the end is a ValueError."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def leaves(self, keys: Keys, depth: int) -> Iterator[tuple[Keys, Packed | Other]]:
        if depth > DEPTH:
            raise ValueError(f"the tree is deeper than {DEPTH}")
        kind, size = self._head()
        if kind in ("map", "list") and size:
            for index in range(size):
                key = self._text(self._expect("text")) if kind == "map" else str(index)
                yield from self.leaves((*keys, key), depth + 1)
        elif kind == "extension":
            yield keys, self._extension(size)
        elif kind == "text":
            yield keys, Other(kind, self._text(size))
        elif kind == "int":
            yield keys, Other(kind, size)
        else:
            self._skip(size)
            yield keys, Other(kind)

    def _extension(self, size: int) -> Packed | Other:
        code, end = self._count(1), self.at + size
        if code != _ARRAY_CODE:
            self._skip(size)
            return Other(f"extension {code}")
        if self._expect("list") != 3:
            raise ValueError("an array is not (shape, dtype, bytes)")
        rank = self._expect("list")
        if rank > _RANK:
            raise ValueError(f"an array has {rank} axes")
        shape = tuple(self._expect("int") for _ in range(rank))
        dtype = self._text(self._expect("text"))
        length = self._expect("bytes")
        start = self.at
        self._skip(length)
        if dtype not in DTYPES:
            raise ValueError(f"an array has the dtype {dtype[:20]!r}, expected one of {', '.join(DTYPES[:4])}")
        if self.at != end or length != math.prod(shape) * np.dtype(dtype).itemsize:
            raise ValueError(f"an array of shape {list(shape)} and dtype {dtype} has {length} bytes")
        return Packed(dtype, shape, ((start, start + length),))

    def _head(self) -> tuple[str, int]:
        """(kind of the next value, its size in bytes or entries; an int's own value)."""
        first = self._count(1)
        for low, high, kind in _SHORT:
            if low <= first <= high:
                return kind, first - low
        if first in _ONE_SIZE:
            return _ONE_SIZE[first]
        if first not in _WITH_SIZE:
            raise ValueError(f"byte {self.at} begins no value")
        kind, width = _WITH_SIZE[first]
        return kind, self._count(width)

    def _expect(self, expected: str) -> int:
        kind, size = self._head()
        if kind != expected:
            raise ValueError(f"byte {self.at} begins {kind}, expected {expected}")
        return size

    def _text(self, size: int) -> str:
        self._skip(size)
        return self.data[self.at - size : self.at].decode()

    def _count(self, width: int) -> int:
        self._skip(width)
        return int.from_bytes(self.data[self.at - width : self.at], "big")

    def _skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise ValueError("it is cut short")


def _joined(leaves: dict[Keys, Packed | Other]) -> dict[Keys, Packed | Other]:
    """The leaves with arrays in pieces made whole."""
    for whole in [keys[:-1] for keys in leaves if keys and keys[-1] == _IN_PIECES]:
        inside = {keys[len(whole) :]: leaves.pop(keys) for keys in list(leaves) if keys[: len(whole)] == whole}
        pieces = [inside["chunks", str(i)] for i in range(sum(key[0] == "chunks" for key in inside))]
        axes = [inside["shape", str(i)] for i in range(sum(key[0] == "shape" for key in inside))]
        leaves[whole] = _whole(pieces, axes)
    return leaves


def _whole(pieces: list[Packed | Other], axes: list[Packed | Other]) -> Packed:
    shape = tuple(axis.value for axis in axes if isinstance(axis, Other) and isinstance(axis.value, int))
    arrays = [piece for piece in pieces if isinstance(piece, Packed)]
    dtypes = {array.dtype for array in arrays}
    ranges = tuple(span for array in arrays for span in array.ranges)
    if len(dtypes) != 1 or len(shape) != len(axes) or len(arrays) != len(pieces):
        raise ValueError("an array in pieces is not whole")
    dtype = dtypes.pop()
    if math.prod(shape) * np.dtype(dtype).itemsize != sum(stop - start for start, stop in ranges):
        raise ValueError(f"an array in pieces of shape {list(shape)} has another number of values")
    return Packed(dtype, shape, ranges)
