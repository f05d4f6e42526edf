"""The store of Keras checkpoints: a ``.keras`` archive, or a bare ``.weights.h5``.

It knows names and arrays, nothing of the family, and does without Keras: nothing of the archive's config is made into
an object, and HDF5's descriptions are all that is read of the weights until they are used.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from griffin_core.checkpoints import keras_archive
from griffin_core.checkpoints.detect import KERAS_SHARDS
from griffin_core.checkpoints.files import named_errors, reserve
from griffin_core.checkpoints.keras_archive import NewArchive, Span
from griffin_core.checkpoints.keras_h5 import Values, list_values
from griffin_core.checkpoints.keras_skeleton import skeleton
from griffin_core.checkpoints.sources import StoredTensor
from griffin_core.errors import CheckpointError
from griffin_core.shapes import DTYPES, Array

FILE = "model.keras"
"""Name of the file inside a directory that we write."""

_BLOCK = 1 << 22
_TITLE = "griffin"
_SKIPPED = frozenset({"optimizer"})
"""Groups of the file that hold no weights."""
_QUANTISED = ("int8", "uint8", "|V1")


class KerasTensors:
    """An opened file; ``open_tensors`` makes it. Values are memory-mapped.

    Attributes:
        stored: every dataset but the optimiser's, by its path.
    """

    def __init__(self, path: Path, values: Mapping[str, Values], zipped: bool) -> None:
        self._path, self._values, self._zipped = path, values, zipped
        self.stored: Mapping[str, StoredTensor] = {
            name: StoredTensor(name, found.dtype, found.shape, path.name) for name, found in values.items()
        }
        with named_errors(f"read {path}"):
            self._raw = np.memmap(path, np.uint8, "r")

    def get(self, name: str) -> Array:
        """The values in the stored dtype, without a copy; they may stand at any byte."""
        found = self._values[name]
        raw = self._raw[found.start : found.start + self.stored[name].nbytes]
        return np.asarray(raw).view(DTYPES[found.dtype]).reshape(found.shape)

    def check(self) -> None:
        """Compare an archive's members with their checksums (reads the whole file); HDF5 itself has none.

        Raises:
            CheckpointError: one is damaged.
        """
        if self._zipped:
            keras_archive.check(self._path)


def open_tensors(path: Path, scratch: Path | None = None) -> KerasTensors:
    """Open a file from its descriptions. ``scratch`` is not needed: values are memory-mapped.

    Raises:
        CheckpointError: it is damaged, or holds anything but plain arrays of weights as Keras saves them.
    """
    if path.name.endswith(KERAS_SHARDS):
        raise CheckpointError(f"{path} lists shards of weights; load them in Keras and save one .keras file")
    with named_errors(f"read {path}"), path.open("rb") as file:
        zipped = file.read(2) == b"PK"
        size = file.seek(0, os.SEEK_END)
    span = keras_archive.weights_span(path) if zipped else Span(0, size)
    values = list_values(path, span, _SKIPPED)
    for name, found in values.items():
        if found.dtype in _QUANTISED:
            raise CheckpointError(f"{path}: tensor {name!r} is {found.dtype}, quantised; save it before quantize()")
        if "lora" in name.lower():
            raise CheckpointError(f"{path}: tensor {name!r} is a factor of LoRA; merge it into its weight, then save")
    return KerasTensors(path, values, zipped)


@contextlib.contextmanager
def create_tensors(
    directory: Path, wanted: Mapping[str, tuple[tuple[int, ...], str]], texts: Mapping[str, bytes]
) -> Iterator[dict[str, Array]]:
    """Write ``model.keras``: arrays to fill in where they stand in the file, which is whole when the block ends well.

    Args:
        wanted: shape and dtype by path of the dataset.
        texts: the archive's other members by name.

    Raises:
        CheckpointError: the file system refuses.
    """
    plan = skeleton(wanted, _TITLE)
    archive = NewArchive(texts, plan.size)
    path, start = directory / FILE, len(archive.head)
    with named_errors(f"write {path}"):
        with path.open("wb") as file:
            reserve(file, archive.total)
            file.write(archive.head)
            for place, page in plan.pages.items():
                file.seek(start + place)
                file.write(page[: plan.size - place])
        raw = np.memmap(path, np.uint8, "r+")
    arrays = {}
    for name, (shape, dtype) in wanted.items():
        place = start + plan.starts[name]
        size = int(np.prod(shape, dtype=np.int64)) * DTYPES[dtype].itemsize
        arrays[name] = np.asarray(raw[place : place + size]).view(DTYPES[dtype]).reshape(shape)
    yield arrays
    with named_errors(f"write {path}"):
        raw.flush()
        arrays.clear()
        _finish(path, archive, Span(start, plan.size))


def _finish(path: Path, archive: NewArchive, weights: Span) -> None:
    """Write what depends on the values: the checksum before them, the directory behind them."""
    crc, left = 0, weights.size
    with path.open("rb+") as file:
        file.seek(weights.start)
        while left:
            block = file.read(min(left, _BLOCK))
            crc, left = zlib.crc32(block, crc), left - len(block)
        file.write(archive.end(crc))
        place, header = archive.local(crc)
        file.seek(place)
        file.write(header)
