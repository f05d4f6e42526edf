"""Zip files that are whole, but not as torch writes them."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.checkpoints.corruption.cases import Case, Ground
from tests.checkpoints.corruption.sources import MODEL, reseal

Records = dict[str, bytes]
PICKLE = "archive/data.pkl"
"""Name of the pickle among the records."""


def _without_pickle(records: Records) -> Records:
    return {name: data for name, data in records.items() if name != PICKLE}


_ARCHIVES: dict[str, Callable[[Records], Records]] = {
    "no pickle": _without_pickle,
    "two pickles": lambda records: {**records, "other/data.pkl": records[PICKLE]},
    "the pickle elsewhere": lambda records: {**_without_pickle(records), "data.pkl": records[PICKLE]},
    "no records": lambda records: {n: d for n, d in records.items() if "/data/" not in n},
    "one record missing": lambda records: {n: d for n, d in records.items() if not n.endswith("/data/3")},
    "a record cut short": lambda records: {n: d[:-4] if n.endswith("/data/3") else d for n, d in records.items()},
    "a record longer": lambda records: {n: d + bytes(64) * n.endswith("/data/3") for n, d in records.items()},
    "big-endian marks": lambda records: {n: b"middle" if n.endswith("byteorder") else d for n, d in records.items()},
    "another alignment": lambda records: {n: b"x" if n.endswith("alignment") else d for n, d in records.items()},
    "nothing": lambda records: {},
    "constants of TorchScript": lambda records: {**records, "archive/constants.pkl": records[PICKLE]},
}


def rearranged(ground: Ground) -> Iterator[Case]:
    """Zip files that are whole, but not as torch writes them."""
    (path,) = ground.source.weights(ground.home)
    for label, change in _ARCHIVES.items():
        slack = label in ("a record longer", "another alignment")
        yield Case(f"an archive with {label}", changed(path, change), path.name, strict=not slack)
    packed = changed(path, lambda records: records, zipfile.ZIP_DEFLATED)
    yield Case("a compressed archive", packed, path.name, strict=False)
    bomb = changed(path, lambda records: {**records, PICKLE: bytes(10**8)}, zipfile.ZIP_DEFLATED)
    yield Case("a compressed archive of much", bomb, path.name)
    yield Case("a name twice", _twice(path), path.name)
    yield Case("something before the archive", _before(path), path.name)


def _twice(path: Path) -> Callable[[Path], None]:
    def damage(home: Path) -> None:
        target = home / MODEL / path.name
        with warnings.catch_warnings(), zipfile.ZipFile(target, "a") as archive:
            warnings.simplefilter("ignore")  # of the doubled name
            archive.writestr(next(name for name in archive.namelist() if name.endswith("/data/3")), bytes(32))
        reseal(home / MODEL)

    return damage


def _before(path: Path) -> Callable[[Path], None]:
    def damage(home: Path) -> None:
        target = home / MODEL / path.name
        target.write_bytes(b"PK" + bytes(62) + target.read_bytes())
        reseal(home / MODEL)

    return damage


def changed(path: Path, change: Callable[[Records], Records], kind: int = zipfile.ZIP_STORED) -> Callable[[Path], None]:
    """A damage: the archive is written anew with other records."""

    def damage(home: Path) -> None:
        write(home / MODEL / path.name, change(read(home / MODEL / path.name)), kind)
        reseal(home / MODEL)

    return damage


def read(path: Path) -> Records:
    """Every record of an archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, records: Records, kind: int = zipfile.ZIP_STORED) -> None:
    """An archive with these records."""
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
