"""The store of the official Flax checkpoints: named arrays in a directory that orbax reads and writes.

The tree is read from its descriptions (``official_tree``), the arrays by tensorstore, with which orbax stores them:
all in one OCDBT database, or each in a zarr directory of its own. Which names there are is no matter of this module.
"""

from __future__ import annotations

import math
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from griffin_core.checkpoints.files import named_errors, reserve
from griffin_core.checkpoints.sources import StoredTensor
from griffin_core.errors import CheckpointError, nearest
from griffin_core_jax.official_packed import DTYPES, Packed
from griffin_core_jax.official_tree import OCDBT_FILE, PACKED_FILE, find_item, read_tree
from griffin_core_jax.official_writer import told, write_tensors

__all__ = ["OrbaxTensors", "open_tensors", "write_tensors"]

IN_MEMORY = 64_000_000
"""Bytes up to which an array is read into memory although there is a scratch directory."""

_DENSEST = 2**16
"""More bytes of values per stored byte than any codec of zarr's gives."""
_AGAIN = "copy the checkpoint again"


class OrbaxTensors:
    """An opened checkpoint; ``open_tensors`` makes it.

    Attributes:
        stored: every array by its path joined by "/", as the directory describes it.
    """

    def __init__(
        self,
        directory: Path,
        scratch: Path | None,
        stored: Mapping[str, StoredTensor],
        places: Mapping[str, ts.TensorStore | Packed],
    ) -> None:
        self.stored = stored
        self._directory, self._scratch, self._places = directory, scratch, places

    def check(self) -> None:
        """Nothing to compare: orbax keeps no checksum over values. Damage of its index shows when it is opened."""

    def get(self, name: str) -> np.ndarray:
        """One array, read-only, in its stored dtype.

        With a scratch directory, one of more than 64 MB stands in a file there, which is gone when the array is;
        memory then holds one stored piece of it at a time.

        Raises:
            CheckpointError: there is no such array, its bytes are damaged, or there is no room for it.
        """
        if name not in self.stored:
            raise CheckpointError(f"{self._directory} has no tensor {name!r}; {nearest(name, self.stored)}")
        values = _room(self._directory, self.stored[name], self._scratch)
        place = self._places[name]
        with told(f"read {self._directory}: tensor {name!r}", _AGAIN):
            if isinstance(place, Packed):
                _unpack(self._directory / PACKED_FILE, place, values)
            else:
                ts.array(values, copy=False, write=True).write(place).result()
        values.flags.writeable = False
        return values


def open_tensors(path: Path, scratch: Path | None = None) -> OrbaxTensors:
    """Open an orbax checkpoint from its descriptions; no values are read.

    Args:
        path: the directory of the tree, or of a step with one item. A level "params" around the whole tree is no
            part of the names.
        scratch: a directory for the values of large arrays, which then take no memory.

    Raises:
        CheckpointError: it is no such directory, is damaged, holds anything but arrays, or has links that leave it;
            the directory and, where it is known, the tensor are named.
    """
    directory = find_item(path.absolute())
    size = _size_of_files(path.absolute())
    tree = read_tree(directory)
    context = _context()
    stored: dict[str, StoredTensor] = {}
    places: dict[str, ts.TensorStore | Packed] = {}
    for name, leaf in tree.leaves.items():
        if leaf.packed is not None:
            places[name] = leaf.packed
            stored[name] = StoredTensor(name, leaf.packed.dtype, leaf.packed.shape, PACKED_FILE)
            continue
        with told(f"read {directory}: tensor {name!r}", _AGAIN):
            store = ts.open(_spec(directory, leaf.key, tree.zarr3), open=True, read=True, context=context).result()
        file = "" if (directory / OCDBT_FILE).exists() else leaf.key
        places[name], stored[name] = store, StoredTensor(name, store.dtype.name, tuple(store.shape), file)
        _check_sizes(directory, stored[name], store, size)
    return OrbaxTensors(directory, scratch, stored, places)


def _context() -> ts.Context:
    """Files are mapped instead of read into memory, and few chunks are held at a time, none longer than needed."""
    limits = {name: {"limit": 2} for name in ("data_copy_concurrency", "file_io_concurrency")}
    return ts.Context({**limits, "cache_pool#nodes": {"total_bytes_limit": 2**24}, "file_io_mode": {"mode": "memmap"}})


def _spec(directory: Path, key: str, zarr3: bool) -> dict[str, Any]:
    """Where tensorstore finds an array; a chunk that is missing is an error, not zeros."""
    whole = {"driver": "file", "path": f"{directory}/"}
    if (directory / OCDBT_FILE).exists():
        place = {"driver": "ocdbt", "base": whole, "path": f"{key}/", "cache_pool": "cache_pool#nodes"}
    elif (directory / key).is_dir():
        place = {**whole, "path": f"{directory / key}/"}
    else:
        raise CheckpointError(f"{directory} lacks {key}, and {OCDBT_FILE} too; {_AGAIN}")
    return {"driver": "zarr3" if zarr3 else "zarr", "kvstore": place, "fill_missing_data_reads": False}


def _check_sizes(directory: Path, tensor: StoredTensor, store: ts.TensorStore, size: int) -> None:
    """Refuse what its files cannot hold, before anything is allocated.

    Args:
        size: bytes of all files.
    """
    where = f"{directory}: tensor {tensor.name!r}"
    piece = tuple(length or 1 for length in store.chunk_layout.write_chunk.shape or ())
    if tensor.dtype not in DTYPES:
        raise CheckpointError(f"{where} has the dtype {tensor.dtype}; expected one of {', '.join(DTYPES[:4])}")
    if tensor.nbytes > size * _DENSEST:
        what = f"is described with shape {list(tensor.shape)}, more than {size} bytes of files can hold"
        raise CheckpointError(f"{where} {what}; {_AGAIN}")
    if any(part > max(whole, 1) for part, whole in zip(piece, tensor.shape, strict=True)):
        raise CheckpointError(f"{where} of shape {list(tensor.shape)} has larger pieces, {list(piece)}; {_AGAIN}")
    _empty(directory, tensor, piece)  # tensorstore ends the process when there is no memory for a piece


def _size_of_files(directory: Path) -> int:
    """Bytes of all files.

    Raises:
        CheckpointError: something is neither file nor directory, or lies elsewhere. Links of a hub's snapshot into
            the same repository's blobs are as good as files.
    """
    roots, total = [directory.resolve()], 0
    roots += [parent.parent / "blobs" for parent in roots[0].parents if parent.name == "snapshots"]
    with named_errors(f"read {directory}"):
        for entry in directory.rglob("*"):
            found, real = entry.stat(), entry.resolve()
            if not any(real.is_relative_to(root) for root in roots):
                raise CheckpointError(f"{entry} is a link that leaves the checkpoint; copy what it points to")
            if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
                raise CheckpointError(f"{entry} is neither a file nor a directory; remove it")
            total += found.st_size
    return total


def _room(directory: Path, tensor: StoredTensor, scratch: Path | None) -> np.ndarray:
    """Where the values will stand, not yet written: memory, or an unnamed file whose bytes are reserved."""
    if scratch is None or tensor.nbytes <= IN_MEMORY:
        return _empty(directory, tensor, tensor.shape)
    what = f"read {directory}: make room for tensor {tensor.name!r} in {scratch}"
    with named_errors(what), tempfile.TemporaryFile(dir=scratch) as file:
        reserve(file, tensor.nbytes)
        return np.memmap(file, tensor.dtype, "r+", shape=tensor.shape)


def _empty(directory: Path, tensor: StoredTensor, shape: tuple[int, ...]) -> np.ndarray:
    """Memory for a tensor, or for a piece of it; nothing of it is touched yet."""
    try:
        return np.empty(shape, tensor.dtype)
    except (MemoryError, ValueError) as error:
        what = f"{directory}: tensor {tensor.name!r} needs memory for {math.prod(shape)} values at once"
        raise CheckpointError(
            f"{what}, more than there is; give a scratch directory, or use another machine"
        ) from error


def _unpack(path: Path, place: Packed, values: np.ndarray) -> None:
    raw, flat, at = np.memmap(path, np.uint8, "r"), values.reshape(-1).view(np.uint8), 0
    for start, stop in place.ranges:
        flat[at : at + stop - start] = raw[start:stop]
        at += stop - start
