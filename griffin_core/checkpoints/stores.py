"""Stores: who reads and writes the files of a framework's own format. Loaded when one is needed, by entry point.

A store knows names and arrays, nothing of the family. It is a module with two functions, ``open_tensors`` and one of
the others:

``open_tensors(path, scratch) -> TensorSource``: from metadata alone. ``scratch`` is a directory on disk for what
cannot be memory-mapped, or None to use memory.

``write_tensors(directory, arrays)``: write arrays by name into a directory that may hold other files already.

``create_tensors(directory, wanted, texts)``, where the format's row says ``in_place``: a context that gives writable
arrays inside of the files themselves, by name, from their shapes and dtypes; ``texts`` are small files that belong in
there too. Nothing then needs room beside them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

from griffin_core.checkpoints.formats import find_format
from griffin_core.checkpoints.sources import TensorSource
from griffin_core.errors import CheckpointError
from griffin_core.shapes import Array

GROUP = "griffin_core.formats"


class Store(Protocol):
    """What the entry point of a format names."""

    def open_tensors(self, path: Path, scratch: Path | None = None) -> TensorSource:
        """The tensors at ``path``."""

    def write_tensors(self, directory: Path, arrays: Mapping[str, Array]) -> None:
        """Write the tensors."""

    def create_tensors(
        self, directory: Path, wanted: Mapping[str, tuple[tuple[int, ...], str]], texts: Mapping[str, bytes]
    ) -> AbstractContextManager[dict[str, Array]]:
        """Arrays to fill in."""


def load_store(name: str) -> Store:
    """The store of a format.

    Raises:
        CheckpointError: nothing here reads the format's files, or its framework is not installed.
    """
    row = find_format(name)
    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in entries:
        raise CheckpointError(f"nothing is registered that reads {name} files; install griffin-core again")
    try:
        return cast(Store, importlib.import_module(entries[name].value))
    except ImportError as error:
        raise CheckpointError(
            f"{row.about} needs a library that is not installed ({error}); pip install 'griffin-core[{row.extra}]'"
        ) from error
