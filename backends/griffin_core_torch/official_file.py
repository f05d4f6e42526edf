"""The store of the official PyTorch checkpoints: one file of ``torch.save`` with a dict of tensors.

It knows names and arrays, nothing of the family. Only ``weights_only`` loading is used: no code in a file is run.
"""

from __future__ import annotations

import contextlib
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from griffin_core.checkpoints.files import named_errors
from griffin_core.checkpoints.sources import StoredTensor
from griffin_core.errors import CheckpointError
from griffin_core.shapes import Array
from griffin_core_torch.arrays import dtype_name

FILE = "model.pt"
"""Name of the file inside a directory that we write."""

_BLOCK = 1 << 22
_DEEPEST = 8
"""Dicts inside of each other, at most."""
_PICKLE = "/data.pkl"
_VALUES = "/data/"


class TorchTensors:
    """An opened file. Values are memory-mapped, but for files older than PyTorch's zip format."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        self._path = path
        self._tensors = tensors
        self.stored: Mapping[str, StoredTensor] = {
            name: StoredTensor(name, dtype_name(t.dtype), tuple(t.shape), path.name) for name, t in tensors.items()
        }

    def get(self, name: str) -> Array:
        """The values in the stored dtype, without a copy."""
        tensor = self._tensors[name].detach().resolve_conj().resolve_neg()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    def check(self) -> None:
        """Compare every record with its checksum in the archive (reads the whole file).

        Raises:
            CheckpointError: a record is damaged.
        """
        if zipfile.is_zipfile(self._path):
            with _reported(self._path), zipfile.ZipFile(self._path) as archive:
                for record in archive.infolist():
                    _read_record(archive, record)


def open_tensors(path: Path, scratch: Path | None = None) -> TorchTensors:
    """Open a file; nothing of its data is read. ``scratch`` is not needed: values are memory-mapped.

    Raises:
        CheckpointError: it is damaged, asks for code to be run, or holds anything but tensors.
    """
    with named_errors(f"read {path}"), path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    room = _check_archive(path) if zipped else None
    with _reported(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)
    tensors: dict[str, Tensor] = {}
    for name, value in _flat(path, found):
        if name in tensors:
            raise CheckpointError(f"{path}: tensor {name!r} occurs twice; save it again as one flat dict")
        tensors[name] = _dense(path, name, value)
    if not tensors:
        raise CheckpointError(f"{path} holds no tensor; expected a dict of tensors by name")
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    if room is not None and sum(storages.values()) > room:
        raise CheckpointError(
            f"{path}: the tensors take more bytes than the {room} that its records have; copy it again"
        )
    return TorchTensors(path, tensors)


def write_tensors(directory: Path, arrays: Mapping[str, Array]) -> None:
    """Write ``model.pt``: a flat dict of tensors. Memory-mapped arrays are written from where they stand.

    Raises:
        CheckpointError: the file system refuses.
    """
    path = directory / FILE
    tensors = {name: _as_tensor(array) for name, array in arrays.items()}
    with named_errors(f"write {path}"), path.open("wb") as file:
        try:
            torch.save(tensors, file)
        except RuntimeError as error:  # the archive's writer hides the reason of the file system
            raise OSError(f"torch cannot finish the file ({_one_line(error)})") from error


def _check_archive(path: Path) -> int:
    """Look at the archive's directory, and at its small records with their checksums, before torch does.

    Returns:
        The bytes of values.

    Raises:
        CheckpointError: it is damaged, or is not as ``torch.save`` writes it.
    """
    with _reported(path), zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        for record in records:
            if record.compress_type != zipfile.ZIP_STORED:  # memory-mapped, its bytes would be taken for values
                raise CheckpointError(f"{path}: {record.filename!r} is compressed; save it again with torch.save")
        pickles = [record for record in records if record.filename.endswith(_PICKLE)]
        if len(pickles) != 1:
            raise CheckpointError(f"{path} is a zip file with {len(pickles)} data.pkl; expected one of torch.save")
        if len({record.filename for record in records}) < len(records):
            raise CheckpointError(f"{path} has two records of one name; save it again with torch.save")
        for record in records:
            if _VALUES not in record.filename:
                _read_record(archive, record)
        return sum(record.file_size for record in records if _VALUES in record.filename)


def _read_record(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> None:
    with archive.open(record) as file:
        while file.read(_BLOCK):
            pass


def _flat(path: Path, value: Any) -> Iterator[tuple[str, Any]]:
    """Entries of nested dicts under names joined by dots; a dict that stands in two places could have no end."""
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path} holds a {type(value).__name__}; expected a dict of tensors by name")
    seen: set[int] = set()
    waiting = [("", value, 0)]
    while waiting:
        prefix, entries, depth = waiting.pop()
        if id(entries) in seen or depth > _DEEPEST:
            where = f"{path}: the dict at {prefix[:100]!r}"
            raise CheckpointError(f"{where} stands in two places, or too deep in others; save one flat dict")
        seen.add(id(entries))
        for name, entry in entries.items():
            if isinstance(entry, Mapping):
                waiting.append((f"{prefix}{name}.", entry, depth + 1))
            else:
                yield f"{prefix}{name}", entry


def _dense(path: Path, name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise CheckpointError(f"{path}: {name!r} is a {type(value).__name__}; expected a tensor")
    if (
        value.layout != torch.strided
        or value.is_quantized
        or value.device.type != "cpu"
        or not value.is_floating_point()
    ):
        raise CheckpointError(f"{path}: tensor {name!r} is {value.dtype}, {value.layout}; expected dense floats")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: tensor {name!r} repeats stored values; save it again after contiguous()")
    return value


def _as_tensor(array: Array) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a read-only array: nothing writes to the tensor
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Errors of the libraries that read the file, as one line that names it."""
    try:
        yield
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or asks for more than tensors to be loaded, which is never done; "
            "expected a dict of tensors, as torch.save writes it"
        ) from error
    except Exception as error:  # a pickle calls torch's functions with what it likes, and they raise what they like
        raise CheckpointError(f"{path} is damaged ({_one_line(error)}); copy it again") from error


def _one_line(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 120 else words[:117] + "..."
