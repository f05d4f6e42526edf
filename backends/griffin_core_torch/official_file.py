"""The store of the official PyTorch checkpoints: one file of ``torch.save`` with a dict of tensors.

It knows names and arrays, nothing of the family. Only ``weights_only`` loading is used: no code in a file is run.
"""

from __future__ import annotations

import contextlib
import pickle
import warnings
import zipfile
import zlib
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
_LIBRARY_ERRORS = (
    *(RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, ArithmeticError, OSError),
    *(zipfile.BadZipFile, zlib.error, MemoryError, RecursionError),
)
"""What torch and zipfile raise on damaged files."""


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
        tensor = self._tensors[name].detach()
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
                for record in archive.namelist():
                    _read_record(archive, record)


def open_tensors(path: Path, scratch: Path | None = None) -> TorchTensors:
    """Open a file; nothing of its data is read. ``scratch`` is not needed: values are memory-mapped.

    Raises:
        CheckpointError: it is damaged, asks for code to be run, or holds anything but tensors.
    """
    with named_errors(f"read {path}"), path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        _check_archive(path)
    with _reported(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)
    tensors: dict[str, Tensor] = {}
    for name, value in _flat(path, found, ""):
        if name in tensors:
            raise CheckpointError(f"{path}: tensor {name!r} occurs twice; save it again as one flat dict")
        tensors[name] = _dense(path, name, value)
    if not tensors:
        raise CheckpointError(f"{path} holds no tensor; expected a dict of tensors by name")
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


def _check_archive(path: Path) -> None:
    """The archive's directory and its pickle are whole: with its checksum, before anything looks at its content."""
    with _reported(path), zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(f"{path} is a zip file with {len(pickles)} data.pkl; expected one of torch.save")
        _read_record(archive, pickles[0])


def _read_record(archive: zipfile.ZipFile, record: str) -> None:
    with archive.open(record) as file:
        while file.read(_BLOCK):
            pass


def _flat(path: Path, value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Entries of nested dicts under names joined by dots."""
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path} holds a {type(value).__name__}; expected a dict of tensors by name")
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _flat(path, entry, f"{prefix}{name}.")
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
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or asks for more than tensors to be loaded, which is never done; "
            "expected a dict of tensors, as torch.save writes it"
        ) from error
    except _LIBRARY_ERRORS as error:
        raise CheckpointError(f"{path} is damaged ({_one_line(error)}); copy it again") from error


def _one_line(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 120 else words[:117] + "..."
