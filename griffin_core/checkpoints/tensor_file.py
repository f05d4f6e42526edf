"""One safetensors file: a checked header, memory-mapped tensors, and a writer that streams and hashes.

Layout: the header's length (8 bytes, little-endian), the header (JSON: name -> dtype, shape, data_offsets),
then the tensors' bytes without gaps.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np

from griffin_core.checkpoints.blocks import BLOCK, blocks
from griffin_core.checkpoints.files import named_errors
from griffin_core.checks import count_not_finite
from griffin_core.errors import CheckpointError
from griffin_core.shapes import DTYPES, Array

CODES: dict[str, str] = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""The format's dtype codes that weights may have, and our names."""

_CODE_OF = {name: code for code, name in CODES.items()}
_MAX_HEADER = 100_000_000
_MAX_RANK = 8
WORKING_BYTES = 3 * 4 * BLOCK
"""Memory that writing takes, whatever the tensors' size: a block, its conversion, and the check's masks."""


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor stands in a file: ``start`` and ``stop`` count from the file's first byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class TensorOut:
    """One tensor to write: the array as it is (or is deferred), and the dtype it shall have in the file."""

    name: str
    array: Array
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.array.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Written:
    """What was written: the file's size and SHA-256, and each tensor's SHA-256 by name."""

    size: int
    sha256: str
    tensors: dict[str, str]


class NotFinite(CheckpointError):
    """A weight to be written has values that are NaN or infinite."""

    def __init__(self, tensor: TensorOut) -> None:
        narrowed = "" if tensor.array.dtype.name == tensor.dtype else f" in {tensor.dtype}"
        super().__init__(f"weight {tensor.name} has values that are NaN or infinite{narrowed}; not written")
        self.name = tensor.name


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Every tensor of a safetensors file, checked against the file's size before anything is allocated.

    Raises:
        CheckpointError: the file cannot be read, is not of this format, or is damaged; file and tensor are named.
    """
    with named_errors(f"read {path}"), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise CheckpointError(
                f"{path} is not a safetensors file or is cut short: {size} bytes, header length {length}"
            )
        header = _parse_header(path, file.read(length))
    header.pop("__metadata__", None)
    infos = [_check_entry(path, name, entry, 8 + length, size) for name, entry in header.items()]
    _check_gaps(path, infos, 8 + length, size)
    return {info.name: info for info in infos}


def map_tensors(path: Path, infos: Mapping[str, TensorInfo]) -> dict[str, Array]:
    """Read-only views into the memory-mapped file, by name; bytes are read when they are used."""
    with named_errors(f"read {path}"):
        raw = np.memmap(path, np.uint8, "r")
    views = {}
    for name, info in infos.items():
        views[name] = np.asarray(raw[info.start : info.stop]).view(DTYPES[info.dtype]).reshape(info.shape)
    return views


def write_tensors(path: Path, tensors: Sequence[TensorOut], progress: Callable[[int], None] | None = None) -> Written:
    """Stream tensors into a new file, converting, checking and hashing on the way, and force it to disk.

    Args:
        tensors: in the order in which they shall stand (wider dtypes first keeps all of them aligned).
        progress: called with the number of bytes just written.

    Raises:
        CheckpointError: a value is NaN or infinite (or becomes so in the narrower dtype), or the disk refuses.
    """
    header = _header_bytes(tensors)
    whole = hashlib.sha256(header)
    digests = {}
    size = len(header)
    with named_errors(f"write {path}"), path.open("wb") as file, ThreadPoolExecutor(1) as pool:
        file.write(header)
        for tensor in tensors:
            digests[tensor.name] = _write_tensor(file, tensor, whole, pool, progress)
            size += tensor.nbytes
        file.flush()
        os.fsync(file.fileno())
    return Written(size, whole.hexdigest(), digests)


def tensor_digest(array: Array) -> str:
    """SHA-256 over a tensor's bytes, row-major: what ``write_tensors`` reports for it."""
    digest = hashlib.sha256()
    for block in blocks(array, array.dtype.name):
        digest.update(block.view(np.uint8).data)
    return digest.hexdigest()


def checked(tensor: TensorOut, block: Array) -> Array:
    """A block of the tensor, in the dtype of the file, after a look at every value.

    Raises:
        NotFinite: a value is NaN or infinite, or became so in the narrower dtype.
    """
    if count_not_finite(block):
        raise NotFinite(tensor)
    return block


def _write_tensor(
    file: BinaryIO, tensor: TensorOut, whole: Any, pool: ThreadPoolExecutor, progress: Callable[[int], None] | None
) -> str:
    own = hashlib.sha256()
    for block in blocks(tensor.array, tensor.dtype):
        data = block.view(np.uint8).data
        # Hashing releases the interpreter lock: the look at the values and the tensor's own hash run beside the
        # file's hash and the write.
        pending = pool.submit(_examine, tensor, block, own)
        whole.update(data)
        file.write(data)
        pending.result()
        if progress is not None:
            progress(data.nbytes)
    return own.hexdigest()


def _examine(tensor: TensorOut, block: Array, own: Any) -> None:
    own.update(checked(tensor, block).view(np.uint8).data)


def _header_bytes(tensors: Sequence[TensorOut]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        stop = offset + tensor.nbytes
        shape, code = list(tensor.array.shape), _CODE_OF[tensor.dtype]
        entries[tensor.name] = {"dtype": code, "shape": shape, "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _parse_header(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            doubled = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            raise ValueError(f"{doubled!r} occurs twice")
        return found

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has a damaged header ({error}); copy it again") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} has a damaged header (a JSON {type(header).__name__}); copy it again")
    return header


def _check_entry(path: Path, name: str, entry: Any, base: int, size: int) -> TensorInfo:
    fields = entry if isinstance(entry, dict) else {}
    code, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not (_are_counts(shape, _MAX_RANK) and _are_counts(offsets, 2) and len(offsets) == 2 and isinstance(code, str)):
        raise CheckpointError(f"{path}: tensor {name!r} has a damaged header entry; copy the file again")
    if code not in CODES:
        raise CheckpointError(f"{path}: tensor {name!r} has dtype {code}; expected one of {', '.join(CODES)}")
    start, stop = offsets
    expected = math.prod(shape) * DTYPES[CODES[code]].itemsize
    if stop - start != expected or base + stop > size:
        raise CheckpointError(
            f"{path}: tensor {name!r} has {stop - start} bytes at {start}; expected {expected} in the file"
        )
    return TensorInfo(name, CODES[code], tuple(shape), base + start, base + stop)


def _check_gaps(path: Path, infos: Sequence[TensorInfo], start: int, size: int) -> None:
    """The tensors follow each other from ``start`` to the file's end."""
    end = start
    for info in sorted(infos, key=lambda info: (info.start, info.stop)):
        if info.start != end:
            raise CheckpointError(
                f"{path}: tensor {info.name!r} starts at byte {info.start}, expected {end}; copy the file again"
            )
        end = info.stop
    if end != size:
        raise CheckpointError(f"{path} has {size} bytes but its header describes {end}; copy it again")


def _are_counts(value: Any, most: int) -> TypeGuard[list[int]]:
    """Whether ``value`` is a list of at most ``most`` sizes that a file can have."""
    if not isinstance(value, list) or len(value) > most:
        return False
    return all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**48 for v in value)
