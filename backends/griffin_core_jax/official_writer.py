"""Write named arrays as an orbax checkpoint: one OCDBT database in small pieces, and the files that describe it.

Pieces are few enough at a time that memory stays small, whatever an array's size; orbax itself copies the whole
tree and stores an array as one piece.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from griffin_core.checkpoints.files import named_errors, sync, write_file
from griffin_core.errors import CheckpointError
from griffin_core_jax.official_packed import DTYPES
from griffin_core_jax.official_tree import OCDBT_FILE, WRAPPER, describe_tree, problem_of_names

CHUNK = 32 * 2**20
"""Bytes of a stored piece at most."""
PENDING = 2 * CHUNK
"""Bytes on their way to disk at a time."""

DATA = "d"
"""The subdirectory in which a database keeps its values."""
_DATABASE = {"max_inline_value_bytes": 1024, "max_decoded_node_bytes": 100_000_000, "manifest_kind": "single"}
"""What orbax's databases are configured with."""
_FAILURES = (ValueError, KeyError, TypeError, IndexError, RuntimeError, MemoryError)
"""What tensorstore raises beside OSError."""
_Group = list[tuple[str, np.ndarray]]


@contextmanager
def told(what: str, then: str) -> Iterator[None]:
    """Whatever tensorstore cannot do becomes a CheckpointError of one line, with the next step."""
    try:
        with named_errors(what):
            yield
    except _FAILURES as error:
        reason = " ".join(str(error).split()).partition(" [")[0]
        raise CheckpointError(f"cannot {what}: {reason[:200] or type(error).__name__}; {then}") from error


def write_tensors(directory: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays into an existing directory, one after the other, and force them to disk.

    The tree is nested dictionaries by the parts of the names; other files in the directory are left alone. An error
    leaves what was written until then.

    Args:
        arrays: by path joined by "/", such as "blocks.0/mlp_block/ffw_up/w"; views of memory-mapped files are read
            piece by piece.

    Raises:
        CheckpointError: names that a tree cannot have, an array that orbax cannot store, a checkpoint that is there
            already, or a file system that refuses.
    """
    directory = directory.absolute()
    if not directory.is_dir():
        raise CheckpointError(f"cannot write {directory}: it is no directory; make it first")
    _check_names(directory, arrays)
    files = describe_tree(arrays)
    for name in (OCDBT_FILE, DATA, *files):
        if (directory / name).exists():
            raise CheckpointError(f"cannot write {directory}: {name} is there already; choose another directory")
    limits = {name: {"limit": 2} for name in ("data_copy_concurrency", "file_io_concurrency")}
    with told(f"write {directory}", "write it again"):
        context = ts.Context(limits)
        for group in _groups(arrays):
            _write(directory, group, context)
        for name, body in files.items():
            write_file(directory / name, body)
        sync(directory / DATA)
        sync(directory)


def _check_names(directory: Path, arrays: Mapping[str, np.ndarray]) -> None:
    paths = [tuple(name.split("/")) for name in arrays]
    levels = {path[:depth] for path in paths for depth in range(1, len(path))}
    problem = problem_of_names(paths)
    if not paths:
        problem = "would hold no tensor; give at least one"
    elif both := levels.intersection(paths):
        problem = f"names a tensor and a level of the tree {'/'.join(min(both))!r}"
    elif levels and all(path[0] == WRAPPER and len(path) > 1 for path in paths):
        problem = f"names all tensors below {WRAPPER!r}, which a reader takes away; leave it out"
    if problem:
        raise CheckpointError(f"cannot write {directory}: it {problem}")


def _groups(arrays: Mapping[str, np.ndarray]) -> Iterator[_Group]:
    """The arrays in their order, so many together as may be on their way to disk."""
    group: _Group = []
    for name in arrays:
        array = arrays[name]
        if array.dtype.name not in DTYPES or not array.size:
            what = f"has the shape {list(array.shape)} and the dtype {array.dtype.name}"
            raise CheckpointError(f"tensor {name!r} {what}; orbax stores values, and here of {', '.join(DTYPES[:4])}")
        if group and sum(other.nbytes for _, other in group) + array.nbytes > PENDING:
            yield group
            group = []
        group.append((name, array))
    yield group


def _write(directory: Path, group: _Group, context: ts.Context) -> None:
    """Write some arrays; their descriptions reach the disk together, and so do their small values."""
    pieces = [_pieces(array) for _, array in group]
    opening = [
        ts.open(_spec(directory, name, array, piece), create=True, context=context)
        for (name, array), piece in zip(group, pieces, strict=True)
    ]
    pending: list[Any] = []
    waiting = 0
    for (_, array), piece, opened in zip(group, pieces, opening, strict=True):
        store = opened.result()
        for start in itertools.product(*(range(0, n, step) for n, step in zip(array.shape, piece, strict=True))):
            region = tuple(slice(at, min(at + step, n)) for at, step, n in zip(start, piece, array.shape, strict=True))
            # Nobody writes to the array before all is on disk, so tensorstore need not copy it.
            pending.append(store[region].write(array[region], can_reference_source_data_indefinitely=True))
            waiting += array[region].nbytes
            if waiting >= PENDING:
                _wait(pending)
                waiting = 0
    _wait(pending)


def _wait(pending: list[Any]) -> None:
    while pending:
        pending.pop(0).result()


def _pieces(array: np.ndarray) -> tuple[int, ...]:
    """The shape of stored pieces: leading axes cut into equal parts, as far as needed."""
    piece = list(array.shape)
    for axis, length in enumerate(array.shape):
        rest = math.prod(piece[axis + 1 :]) * array.dtype.itemsize
        parts = math.ceil(length / max(1, CHUNK // rest))
        piece[axis] = math.ceil(length / parts)
        if parts < length:
            break
    return tuple(piece)


def _spec(directory: Path, name: str, array: np.ndarray, piece: tuple[int, ...]) -> dict[str, Any]:
    place = {
        "driver": "ocdbt",
        "base": {"driver": "file", "path": f"{directory}/"},
        "path": f"{name.replace('/', '.')}/",
        "config": _DATABASE,
        "assume_config": True,
    }
    return {
        "driver": "zarr",
        "kvstore": place,
        "dtype": array.dtype.name,
        "metadata": {"shape": list(array.shape), "chunks": list(piece), "compressor": {"id": "zstd", "level": 1}},
        # Pieces of zeros too: a reader takes a missing piece for damage.
        "store_data_equal_to_fill_value": True,
    }
