"""The skeleton of an HDF5 file as Keras writes it: all but the values, which are filled in where they stand."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from griffin_core.checkpoints.keras_h5 import BFLOAT16, FLOATS, library
from griffin_core.shapes import DTYPES

_ALIGN = 64
_PAGE = 1 << 12


@dataclass(frozen=True)
class Skeleton:
    """An HDF5 file without the values of its datasets.

    Attributes:
        size: bytes of the whole file.
        pages: its other bytes, by their place.
        starts: first byte of each dataset's values.
    """

    size: int
    pages: Mapping[int, bytes]
    starts: Mapping[str, int]


def skeleton(wanted: Mapping[str, tuple[tuple[int, ...], str]], title: str) -> Skeleton:
    """Lay out a file of datasets, each in one piece.

    Args:
        wanted: shape and dtype by path.
        title: what the group of the model's own variables says as its name.
    """
    memory = _Pages()
    starts = {}
    with library().File(memory, "w", alignment_threshold=1, alignment_interval=_ALIGN) as root:
        for path, (shape, dtype) in wanted.items():
            owner, _, key = path.rpartition("/")
            group = root.require_group(owner)
            if not len(group.attrs):
                group.attrs["name"] = owner.split("/")[-2]
            starts[path] = _create(group, key, shape, dtype).get_offset()
        root.require_group("vars").attrs["name"] = title
    return Skeleton(memory.size, {place: bytes(page) for place, page in sorted(memory.pages.items())}, starts)


def _create(group: Any, key: str, shape: tuple[int, ...], dtype: str) -> Any:
    """A dataset that has its room in the file, and no time of its making."""
    h5py = library()
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_layout(h5py.h5d.CONTIGUOUS)
    how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    how.set_obj_track_times(False)
    if dtype == BFLOAT16:
        kind = h5py.h5t.create(h5py.h5t.OPAQUE, DTYPES[dtype].itemsize)
    else:
        kind = getattr(h5py.h5t, FLOATS[dtype])
    made = h5py.h5d.create(group.id, key.encode(), kind, h5py.h5s.create_simple(shape), how)
    if dtype == BFLOAT16:
        h5py.Dataset(made).attrs["dtype"] = BFLOAT16
    return made


class _Pages(io.RawIOBase):
    """A file in memory of which only the pages exist that were written to."""

    def __init__(self) -> None:
        self.size, self.pages, self._at = 0, dict[int, bytearray](), 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; from the start, from here, or from the end."""
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        """The place in the file."""
        return self._at

    def truncate(self, size: int | None = None) -> int:
        """Set the size; what is new is zero."""
        self.size = self._at if size is None else size
        return self.size

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        data = np.frombuffer(buffer, np.uint8)
        for done, page, start, count in self._parts(len(data)):
            known = self.pages.get(page)
            data[done : done + count] = 0 if known is None else np.frombuffer(known, np.uint8)[start : start + count]
        self._at += len(data)
        return len(data)

    def write(self, buffer: Any) -> int:
        """Write a buffer."""
        data = bytes(buffer)
        for done, page, start, count in self._parts(len(data)):
            self.pages.setdefault(page, bytearray(_PAGE))[start : start + count] = data[done : done + count]
        self._at += len(data)
        self.size = max(self.size, self._at)
        return len(data)

    def _parts(self, count: int) -> Iterator[tuple[int, int, int, int]]:
        """Bytes done before, page, start in it and length of each piece of what comes next."""
        done = 0
        while done < count:
            start = (self._at + done) % _PAGE
            length = min(count - done, _PAGE - start)
            yield done, self._at + done - start, start, length
            done += length
