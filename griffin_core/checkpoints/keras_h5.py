"""HDF5 as Keras uses it: where each dataset's values stand in a file.

Only the descriptions go through h5py. Values are left to memory maps, so none of HDF5's filters is ever run.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from griffin_core.checkpoints.keras_archive import Span
from griffin_core.errors import CheckpointError
from griffin_core.shapes import DTYPES

FLOATS = {"float16": "IEEE_F16LE", "float32": "IEEE_F32LE", "float64": "IEEE_F64LE"}
"""HDF5's names of its types, by ours."""
BFLOAT16 = "bfloat16"
_DEEPEST = 16
_AGAIN = "save it again with model.save"


class Values(NamedTuple):
    """A dataset's values: dtype by name, shape, and their first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int


def library() -> Any:
    """h5py, which only these files need.

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise CheckpointError(
            f"a Keras file needs a library that is not installed ({error}); pip install 'griffin-core[keras]'"
        ) from error
    return h5py


def list_values(path: Path, span: Span, skip: frozenset[str]) -> dict[str, Values]:
    """Every dataset of an HDF5 file, or of one inside another file, by its path; no values are read.

    Args:
        span: the bytes of the HDF5 file in the file at ``path``.
        skip: groups at the root that are not looked at.

    Raises:
        CheckpointError: it is damaged, has links that lead elsewhere, or values that stand not plainly in it.
    """
    h5py, found = library(), dict[str, Values]()
    with path.open("rb") as file, _reported(path), h5py.File(_Stretch(file, span), "r") as root:
        waiting: list[tuple[str, Any]] = [("", root)]
        seen = {h5py.h5o.get_info(root.id).addr}
        while waiting:
            prefix, group = waiting.pop()
            for key in group:
                name = f"{prefix}{key}"
                if name in skip:
                    continue
                item = _linked(path, group, key, name)
                address = h5py.h5o.get_info(item.id).addr
                if address in seen or name.count("/") > _DEEPEST:
                    raise CheckpointError(f"{path}: {name!r} stands in two places, or too deep; {_AGAIN}")
                seen.add(address)
                if isinstance(item, h5py.Group):
                    waiting.append((f"{name}/", item))
                else:
                    found[name] = _described(path, name, item, span)
    _check_apart(path, found)
    return found


def _linked(path: Path, group: Any, key: str, name: str) -> Any:
    h5py, link = library(), group.get(key, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise CheckpointError(f"{path}: {name!r} is a {type(link).__name__}, which is never followed; {_AGAIN}")
    item = group[key]
    if not isinstance(item, h5py.Group | h5py.Dataset):
        raise CheckpointError(f"{path}: {name!r} is a {type(item).__name__}; expected a group or a dataset")
    return item


def _described(path: Path, name: str, dataset: Any, span: Span) -> Values:
    """A dataset whose values stand in the file, in one piece."""
    where = f"{path}: tensor {name!r}"
    plist = dataset.id.get_create_plist()
    if dataset.shape is None or plist.get_external_count() or plist.get_layout() != library().h5d.CONTIGUOUS:
        raise CheckpointError(f"{where} is in chunks, compressed, or in another file; {_AGAIN}")
    shape, dtype, start = tuple(dataset.shape), _dtype(dataset), dataset.id.get_offset()
    size = math.prod(shape) * dataset.id.get_type().get_size()
    if start is None or dataset.id.get_storage_size() != size or start + size > span.size:
        raise CheckpointError(f"{where} of shape {list(shape)} and dtype {dtype} does not fit in the file; {_AGAIN}")
    return Values(dtype, shape, span.start + start)


def _dtype(dataset: Any) -> str:
    """Our name of a float; of anything else the name that HDF5's type has in NumPy."""
    types, kind = library().h5t, dataset.id.get_type()
    for name, known in FLOATS.items():
        if kind == getattr(types, known):
            return name
    if kind.get_class() == types.OPAQUE and kind.get_size() == DTYPES[BFLOAT16].itemsize:
        note = dataset.attrs.get_id("dtype") if "dtype" in dataset.attrs else None
        if note is not None and note.shape == () and dataset.attrs["dtype"] == BFLOAT16:
            return BFLOAT16
    return str(dataset.dtype)


def _check_apart(path: Path, found: Mapping[str, Values]) -> None:
    """No two datasets share bytes."""
    end, before = 0, ""
    for name, values in sorted(found.items(), key=lambda pair: pair[1].start):
        if values.start < end:
            raise CheckpointError(f"{path}: tensors {before!r} and {name!r} share bytes; {_AGAIN}")
        dtype = DTYPES.get(values.dtype)
        end = values.start + math.prod(values.shape) * (1 if dtype is None else dtype.itemsize)
        before = name


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """What h5py raises as one line that names the file."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # of a damaged file h5py raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path} is damaged ({reason[:120]}); copy it again") from error


class _Stretch(io.RawIOBase):
    """A range of a file as a file of its own. Reads beyond its end give zeros: HDF5 does not look how many came."""

    def __init__(self, file: IO[bytes], span: Span) -> None:
        self._file, self._span, self._at = file, span, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; from the start, from here, or from the end of the range."""
        self._at = offset + (0, self._at, self._span.size)[whence]
        return self._at

    def tell(self) -> int:
        """The place in the range."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        wanted = len(buffer)
        self._file.seek(self._span.start + self._at)
        data = self._file.read(max(0, min(wanted, self._span.size - self._at)))
        buffer[:] = data + bytes(wanted - len(data))
        self._at += wanted
        return wanted
