"""Writing a framework's files: parameters change their places on disk, then the framework's store takes them.

What needs another orientation, another dtype or a neighbour to be stacked with goes through one disk-backed file, so
memory holds a few blocks, and what the store itself needs. A store that works in place has it go into its own file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from griffin_core.checkpoints.blocks import row_blocks, scatter
from griffin_core.checkpoints.checkpoint import Progress
from griffin_core.checkpoints.files import named_errors, reserve, sync
from griffin_core.checkpoints.formats import KERAS, find_format, layout_of
from griffin_core.checkpoints.hf_config import CONFIG_FILE, SECTION
from griffin_core.checkpoints.keras_config import archive_texts
from griffin_core.checkpoints.manifest import FileRecord, Manifest, file_digest
from griffin_core.checkpoints.stores import Store, load_store
from griffin_core.checkpoints.tensor_directory import Draft, finish_directory
from griffin_core.checkpoints.tensor_file import TensorOut, checked
from griffin_core.errors import ConfigError
from griffin_core.layouts.official import official_config
from griffin_core.layouts.params import param_table
from griffin_core.layouts.places import Layout, Place, places
from griffin_core.shapes import DTYPES, Array

OFFICIAL_SECTION = "recurrentgemma"
"""Key of the official code's own config in the ``config.json`` beside its weights."""
_SCRATCH = "scratch.part"
_ALIGN = 64


def write(part: Path, draft: Draft, progress: Progress | None = None, expected: str | None = None) -> Manifest:
    """Fill an empty directory with a framework's checkpoint, its config and tokenizer; the manifest comes last.

    Args:
        expected: the digest that the weights must turn out to have.

    Raises:
        CheckpointMismatch: they have another.
        CheckpointError: a weight is NaN or infinite, the disk refuses, or the framework is not installed.
        ConfigError: two halves of a stacked tensor differ in dtype.
    """
    layout = layout_of(draft.format)
    store = load_store(draft.format)
    digests: dict[str, str] = {}
    arrays: dict[str, Array] = {}
    with _room(part, draft, layout, store) as room:
        for tensor, place in zip(draft.tensors, places(draft.config, layout), strict=True):
            digests[tensor.name], arrays[place.stored] = _placed(tensor, place, room, progress)
        if not find_format(draft.format).in_place:
            store.write_tensors(part, arrays)
        arrays.clear()
    records = _records(part)
    return finish_directory(part, draft, _texts(draft), records, digests, expected)


def _room(part: Path, draft: Draft, layout: Layout, store: Store) -> AbstractContextManager[dict[str, Array]]:
    """Writable arrays by the format's names: in the files themselves, or in one file for what has to change."""
    if not find_format(draft.format).in_place:
        return _scratch(part, draft, layout)
    pairs = zip(draft.tensors, places(draft.config, layout), strict=True)
    wanted = {place.stored: (place.shape(tuple(tensor.array.shape)), tensor.dtype) for tensor, place in pairs}
    decays = {tensor.dtype for tensor in draft.tensors if tensor.name in _decays(draft)}
    decay = decays.pop() if len(decays) == 1 else "float32"
    return store.create_tensors(part, wanted, archive_texts(draft.config, draft.dtype, decay))


def scratch_bytes(draft: Draft) -> int:
    """Bytes on disk that are needed for a while beside the checkpoint itself."""
    row = find_format(draft.format)
    if row.layout is None or row.in_place:
        return 0
    pairs = zip(draft.tensors, places(draft.config, row.layout), strict=True)
    return sum(_padded(tensor.nbytes) for tensor, place in pairs if not _as_it_is(tensor, place))


def _placed(tensor: TensorOut, place: Place, room: Mapping[str, Array], progress: Progress | None) -> tuple[str, Array]:
    """Digest of a canonical parameter, and the official array that it is now part of."""
    own = hashlib.sha256()
    official = room.get(place.stored)
    view = None if official is None else place.take(official)
    for start, block in row_blocks(tensor.array, tensor.dtype):
        own.update(checked(tensor, block).view(np.uint8).data)
        if view is not None:
            scatter(block, view[start : start + len(block)])
        if progress is not None:
            progress(block.nbytes)
    return own.hexdigest(), np.asarray(tensor.array) if official is None else official


def _as_it_is(tensor: TensorOut, place: Place) -> bool:
    """Whether the store can take the array where it stands: nothing about it changes, and it is memory-mapped."""
    same = place.transform.name == "none" and place.half is None and tensor.array.dtype.name == tensor.dtype
    return same and isinstance(tensor.array, np.ndarray) and tensor.array.flags.c_contiguous


@contextmanager
def _scratch(part: Path, draft: Draft, layout: Layout) -> Iterator[dict[str, Array]]:
    """Writable arrays by official name, in one file on disk that is gone afterwards."""
    wanted: dict[str, tuple[tuple[int, ...], str]] = {}
    for tensor, place in zip(draft.tensors, places(draft.config, layout), strict=True):
        if not _as_it_is(tensor, place):
            shape, dtype = wanted.setdefault(place.stored, (place.shape(tuple(tensor.array.shape)), tensor.dtype))
            if dtype != tensor.dtype:
                raise ConfigError(f"{place.stored} would hold {dtype} and {tensor.dtype}; give one --dtype")
    sizes = [_padded(math.prod(shape) * DTYPES[dtype].itemsize) for shape, dtype in wanted.values()]
    path = part / _SCRATCH
    with named_errors(f"write {part}"):
        with path.open("wb+") as file:
            if sum(sizes):
                reserve(file, sum(sizes))
        raw = np.memmap(path, np.uint8, "r+") if sum(sizes) else np.empty(0, np.uint8)
    room, offset = {}, 0
    for (name, (shape, dtype)), size in zip(wanted.items(), sizes, strict=True):
        count = math.prod(shape) * DTYPES[dtype].itemsize
        room[name] = np.asarray(raw[offset : offset + count]).view(DTYPES[dtype]).reshape(shape)
        offset += size
    try:
        yield room
    finally:
        room.clear()
        path.unlink(missing_ok=True)


def _decays(draft: Draft) -> set[str]:
    return {row.name for row in param_table(draft.config) if row.float32}


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _records(part: Path) -> dict[str, FileRecord]:
    """Every file that the store wrote, forced to disk, by its name relative to the directory."""
    found = {}
    with named_errors(f"write {part}"):
        for path in sorted(part.rglob("*")):
            sync(path)
            if path.is_dir():
                continue
            found[path.relative_to(part).as_posix()] = FileRecord(path.stat().st_size, file_digest(path))
    return found


def _texts(draft: Draft) -> dict[str, bytes]:
    """The small files; ``config.json`` holds our config and, for the official code, its own arguments."""
    fields: dict[str, object] = {SECTION: draft.config.to_dict()}
    if draft.format != KERAS:
        fields[OFFICIAL_SECTION] = official_config(draft.config)
    return {**draft.texts(), CONFIG_FILE: (json.dumps(fields, indent=2) + "\n").encode()}
