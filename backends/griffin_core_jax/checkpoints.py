"""A trainer's state on disk: arrays in orbax's format, and a sealed record that says whose they are.

::

    trainer.json             step, backend, config, options, and the SHA-256 of every file below; written last
    arrays/STEP/state/       parameters and optimiser state (orbax's CheckpointManager; JAX tools can read it)
    arrays/STEP/data/        where a grain iterator stood, if one was given
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from griffin_core.checkpoints.files import named_errors, replacing, sync
from griffin_core.checkpoints.manifest import file_digest
from griffin_core.checkpoints.sealed import read_sealed, write_sealed
from griffin_core.checkpoints.trainer_state import STATE_FILE, check_file, check_same_run, run_record
from griffin_core.config import GriffinConfig
from griffin_core.errors import BackendError, CheckpointError, InputError
from griffin_core.schedules import TrainerOptions
from griffin_core_jax.dispatch import BACKEND

KIND = "griffin-core jax trainer state 1"
ARRAYS = "arrays"
STATE, DATA = "state", "data"
"""Items of orbax's directory."""


def save_state(
    directory: Path, config: GriffinConfig, options: TrainerOptions, step: int, state: Any, iterator: Any = None
) -> None:
    """Write a state; the directory appears whole or not at all, and everything is on disk before this returns.

    Args:
        step: steps already taken.
        state: a tree of arrays.
        iterator: a grain iterator whose place is saved beside them, or None.

    Raises:
        CheckpointError: a value is NaN or infinite, or the file system refuses.
    """
    _check_finite(state)
    items: dict[str, Any] = {STATE: ocp.args.StandardSave(state)}
    if iterator is not None:
        items[DATA] = _grain().CheckpointSave(iterator)
    with replacing(directory.absolute()) as part:
        with _manager(part / ARRAYS, f"write {directory}") as manager:
            manager.save(step, args=ocp.args.Composite(**items))
            manager.wait_until_finished()
        files = {
            str(path.relative_to(part)): {"size": path.stat().st_size, "sha256": file_digest(path)}
            for path in _synced(part / ARRAYS)
        }
        write_sealed(part / STATE_FILE, KIND, {**run_record(config, options, BACKEND, step), "files": files})


def load_state(
    directory: Path, config: GriffinConfig, options: TrainerOptions, like: Any, iterator: Any = None
) -> tuple[int, Any]:
    """(steps taken, state) of a directory, every file checked against its SHA-256 first.

    Args:
        like: a tree of arrays in whose shapes, dtypes and places the state is returned.
        iterator: a grain iterator to set where the saved one stood, or None to leave that aside.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind.
        CheckpointMismatch: it belongs to another config, other options or another backend.
        InputError: an iterator is given, and none was saved.
    """
    directory = directory.absolute()
    body = read_sealed(directory / STATE_FILE, KIND)
    check_same_run(directory, body, config, options, BACKEND)
    _check_files(directory, body["files"])
    step = int(body["step"])
    items: dict[str, Any] = {STATE: ocp.args.StandardRestore(jax.tree.map(_abstract, like))}
    if iterator is not None:
        if not (directory / ARRAYS / str(step) / DATA).is_dir():
            raise InputError(f"{directory} was saved without an iterator; restore it without one")
        items[DATA] = _grain().CheckpointRestore(iterator)
    with _manager(directory / ARRAYS, f"read {directory}") as manager:
        found = manager.restore(step, args=ocp.args.Composite(**items))
    return step, found[STATE]


@contextmanager
def _manager(directory: Path, what: str) -> Iterator[ocp.CheckpointManager]:
    """Orbax's manager without threads that outlive it; what it cannot do is said in this library's words."""
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    try:
        with named_errors(what), ocp.CheckpointManager(directory, options=options) as manager:
            yield manager
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"cannot {what}: orbax says {reason}") from error


def _synced(directory: Path) -> list[Path]:
    """Every file under a directory, forced to disk with the directories that name them."""
    found = sorted(directory.rglob("*"))
    for path in (*found, directory):
        if path.is_dir():
            sync(path)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    return [path for path in found if path.is_file()]


def _check_files(directory: Path, files: Mapping[str, Mapping[str, object]]) -> None:
    for name, expected in files.items():
        check_file(directory / name, expected)


def _check_finite(state: Any) -> None:
    for path, value in jax.tree_util.tree_leaves_with_path(state):
        host = np.asarray(value)
        if host.dtype.kind == "f" and not np.isfinite(host).all():
            where = jax.tree_util.keystr(path)
            raise CheckpointError(f"{where} holds NaN or infinity; a trainer in this state cannot go on")


def _abstract(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _grain() -> Any:
    try:
        from grain import checkpoint
    except ImportError as error:
        raise BackendError("an iterator is saved by the grain library; pip install 'griffin-core[train]'") from error
    return checkpoint
