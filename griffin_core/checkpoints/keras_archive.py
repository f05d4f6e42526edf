"""The zip archive of a ``.keras`` file: where its weights stand, its small texts, and an archive to be filled in.

Members are stored as they are, so the weights can be memory-mapped inside of the archive and written there.
"""

from __future__ import annotations

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from griffin_core.checkpoints.files import named_errors
from griffin_core.errors import CheckpointError

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
"""The members that Keras writes."""
ASSETS = "assets/"

_ALIGN = 64
_BLOCK = 1 << 22
_LARGEST_TEXT = 1 << 28
_LARGEST_32 = 0xFFFFFFFF
_LOCAL, _CENTRAL = "<4s5H3I2H", "<4s6H3I5H2I"
_FIRST_DAY = 0x21
"""1980-01-01, the first date of the format: the bytes depend on nothing but the content."""
_ATTRIBUTES = 0o600 << 16


@dataclass(frozen=True)
class Span:
    """A range of bytes of a file."""

    start: int
    size: int


def weights_span(path: Path) -> Span:
    """Where the weights stand in an archive.

    Raises:
        CheckpointError: it is damaged, has no weights in HDF5, or has them compressed.
    """
    with _opened(path) as archive:
        _check_members(path, archive)
        info = archive.getinfo(WEIGHTS)
        with path.open("rb") as file:
            file.seek(info.header_offset)
            header = file.read(struct.calcsize(_LOCAL))
            *_, name, extra = struct.unpack(_LOCAL, header)
            start = info.header_offset + len(header) + name + extra
            end = file.seek(0, 2)
        if header[:4] != b"PK\3\4" or info.compress_size != info.file_size or start + info.file_size > end:
            raise CheckpointError(f"{path}: the archive's entry of {WEIGHTS} is damaged; copy it again")
    return Span(start, info.file_size)


def read_text(path: Path, name: str) -> bytes:
    """A small member of an archive; its checksum is compared.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    with _opened(path) as archive:
        _check_members(path, archive)
    return _read(path, name)


def _read(path: Path, name: str) -> bytes:
    with _opened(path) as archive:
        info = archive.getinfo(name)
        if info.file_size > _LARGEST_TEXT:
            raise CheckpointError(f"{path}: {name} has {info.file_size} bytes; expected at most {_LARGEST_TEXT}")
        return archive.read(info)


def read_assets(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Those of the files that the model saved beside its weights (its tokenizer's), by name.

    Raises:
        CheckpointError: the archive is damaged, or one is too large.
    """
    with _opened(path) as archive:
        inside = set(archive.namelist())
    return {name: _read(path, ASSETS + name) for name in names if ASSETS + name in inside}


def check(path: Path) -> None:
    """Compare the members with their checksums (reads the whole file).

    Raises:
        CheckpointError: one is damaged.
    """
    with _opened(path) as archive:
        for name in (CONFIG, WEIGHTS):
            with archive.open(name) as member:
                while member.read(_BLOCK):
                    pass


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    names = [info.filename for info in archive.infolist()]
    if WEIGHTS not in names and WEIGHTS.replace(".h5", ".npz") in names:
        raise CheckpointError(f"{path} holds its weights as npz; save it again from Keras with h5py installed")
    for name in (CONFIG, WEIGHTS):
        if names.count(name) != 1:
            raise CheckpointError(f"{path} has {names.count(name)} members {name}; expected one, as Keras writes it")
        info = archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise CheckpointError(f"{path}: {name} is compressed or encrypted; save it again with model.save")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; what its reader raises becomes one line that names the file."""
    try:
        with named_errors(f"read {path}"), zipfile.ZipFile(path) as archive:
            yield archive
    except CheckpointError:
        raise
    except Exception as error:  # a damaged directory makes zipfile raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path} is damaged ({reason[:120]}); copy it again") from error


@dataclass(frozen=True)
class _Entry:
    name: str
    crc: int
    size: int
    offset: int

    def local(self) -> bytes:
        """The header before the content."""
        small = self.size < _LARGEST_32
        extra = b"" if small else struct.pack("<2H2Q", 1, 16, self.size, self.size)
        size = self.size if small else _LARGEST_32
        needed, name = 20 if small else 45, self.name.encode()
        fields = (needed, 0, zipfile.ZIP_STORED, 0, _FIRST_DAY, self.crc, size, size, len(name), len(extra))
        return struct.pack(_LOCAL, b"PK\3\4", *fields) + name + extra

    def central(self) -> bytes:
        """The entry in the directory at the end."""
        small = self.size < _LARGEST_32
        extra = b"" if small else struct.pack("<2H2Q", 1, 16, self.size, self.size)
        size = self.size if small else _LARGEST_32
        needed, name = 20 if small else 45, self.name.encode()
        fields = (3 << 8 | needed, needed, 0, zipfile.ZIP_STORED, 0, _FIRST_DAY, self.crc, size, size)
        rest = (len(name), len(extra), 0, 0, 0, _ATTRIBUTES, self.offset)
        return struct.pack(_CENTRAL, b"PK\1\2", *fields, *rest) + name + extra


class NewArchive:
    """An archive whose last member is filled in where it stands.

    Args:
        texts: the small members; spaces behind the last one put the weights on a multiple of 64 bytes.
        size: bytes of the weights.

    Attributes:
        head: every byte before the weights.
        total: bytes of the whole file.
    """

    def __init__(self, texts: Mapping[str, bytes], size: int) -> None:
        contents = dict(texts)
        before = sum(len(_Entry(name, 0, len(text), 0).local()) + len(text) for name, text in contents.items())
        before += len(_Entry(WEIGHTS, 0, size, 0).local())
        contents[list(contents)[-1]] += b" " * (-before % _ALIGN)
        self._entries, self.head = [], b""
        for name, text in contents.items():
            entry = _Entry(name, zlib.crc32(text), len(text), len(self.head))
            self._entries.append(entry)
            self.head += entry.local() + text
        self._size, self._offset = size, len(self.head)
        self.head += _Entry(WEIGHTS, 0, size, self._offset).local()
        self.total = len(self.head) + size + len(self.end(0))

    def local(self, crc: int) -> tuple[int, bytes]:
        """Where the header of the weights stands, and what it is when their checksum is known."""
        return self._offset, _Entry(WEIGHTS, crc, self._size, self._offset).local()

    def end(self, crc: int) -> bytes:
        """What comes behind the weights: the directory."""
        entries = [*self._entries, _Entry(WEIGHTS, crc, self._size, self._offset)]
        directory = b"".join(entry.central() for entry in entries)
        start, count = len(self.head) + self._size, len(entries)
        long = b""
        if start >= _LARGEST_32:
            fields = (44, 45, 45, 0, 0, count, count, len(directory), start)
            long = struct.pack("<4sQ2H2I4Q", b"PK\6\6", *fields)
            long += struct.pack("<4sIQI", b"PK\6\7", 0, start + len(directory), 1)
        short = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), min(start, _LARGEST_32), 0)
        return directory + long + short
