"""Keras files taken apart and put together again: the members of the archive, and its HDF5 file as h5py has it."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from griffin_core.shapes import Array
from tests.checkpoints.corruption.sources import MODEL, reseal

Members = dict[str, bytes]
CONFIG, WEIGHTS = "config.json", "model.weights.h5"


def read(path: Path) -> Members:
    """Every member of an archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: Members, kind: int = zipfile.ZIP_STORED) -> None:
    """An archive with these members."""
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def changed(change: Callable[[Members], Members], kind: int = zipfile.ZIP_STORED) -> Callable[[Path], None]:
    """A damage: the archive is written anew with other members."""

    def damage(home: Path) -> None:
        (path,) = (home / MODEL).glob("*.keras")
        write(path, change(read(path)), kind)
        reseal(home / MODEL)

    return damage


def weights_changed(edit: Callable[[Any], None]) -> Callable[[Path], None]:
    """A damage: the HDF5 file is edited by h5py."""

    def change(members: Members) -> Members:
        with opened(members) as root:
            edit(root)
        return members

    return changed(change)


@contextlib.contextmanager
def opened(members: Members) -> Iterator[Any]:
    """The HDF5 file among the members, to be edited."""
    memory = io.BytesIO(members[WEIGHTS])
    with h5py.File(memory, "r+") as root:
        yield root
    members[WEIGHTS] = memory.getvalue()


def names(path: Path) -> list[str]:
    """Every dataset of a file."""
    found: list[str] = []
    with opened(read(path)) as root:
        root.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


def load(path: Path) -> dict[str, Array]:
    """Every array of a file."""
    with opened(read(path)) as root:
        return {name: np.array(root[name]) for name in names(path)}


def save(path: Path, arrays: dict[str, Array]) -> None:
    """The inverse, as Keras stores them."""
    members = read(path)
    memory = io.BytesIO()
    with h5py.File(memory, "w") as root:
        for name, array in arrays.items():
            made = root.create_dataset(name, data=array)
            if array.dtype == ml_dtypes.bfloat16:
                made.attrs["dtype"] = "bfloat16"
    write(path, {**members, WEIGHTS: memory.getvalue()})
