"""A trainer's whole state as a directory: weights, AdamW moments, step. Framework-neutral and verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from griffin_core.checkpoints.files import contained, named_errors, replacing
from griffin_core.checkpoints.manifest import file_digest
from griffin_core.checkpoints.sealed import read_sealed, write_sealed
from griffin_core.checkpoints.tensor_file import TensorOut, map_tensors, read_header, write_tensors
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, CheckpointMismatch
from griffin_core.layouts.params import check_params
from griffin_core.schedules import ADAMW, TrainerOptions
from griffin_core.shapes import Array

STATE_FILE = "trainer.json"
KIND = "griffin-core trainer state 1"
PARTS = ("weights", "first_moments", "second_moments")
"""Each is one safetensors file of float32 tensors under canonical names."""
LATER_OPTIONS = {"optimizer": ADAMW}
"""What fields of the options meant before there were such fields."""


@dataclass(frozen=True)
class TrainerState:
    """What a trainer needs to go on bit for bit.

    Attributes:
        step: steps already taken.
        weights: float32 by canonical name.
        first_moments, second_moments: AdamW's, float32 by canonical name.
    """

    step: int
    weights: Mapping[str, Array]
    first_moments: Mapping[str, Array]
    second_moments: Mapping[str, Array]


def save_trainer_state(
    directory: Path, config: GriffinConfig, options: TrainerOptions, state: TrainerState, backend: str
) -> None:
    """Write the state; the directory appears whole or not at all.

    Args:
        backend: who trains; a state is continued by the same backend only, other rounding is another run.

    Raises:
        CheckpointError: a value is NaN or infinite, or the file system refuses.
    """
    with replacing(directory) as part:
        files = {}
        for name in PARTS:
            arrays: Mapping[str, Array] = getattr(state, name)
            path = part / f"{name}.safetensors"
            written = write_tensors(path, [TensorOut(key, array, "float32") for key, array in arrays.items()])
            files[path.name] = {"size": written.size, "sha256": written.sha256}
        write_sealed(part / STATE_FILE, KIND, {**run_record(config, options, backend, state.step), "files": files})


def load_trainer_state(directory: Path, config: GriffinConfig, options: TrainerOptions, backend: str) -> TrainerState:
    """The state in a directory, every file checked against its SHA-256; arrays are memory-mapped and read-only.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind.
        CheckpointMismatch: it belongs to another config, other options or another backend; the first difference
            is named.
    """
    body = read_sealed(directory / STATE_FILE, KIND)
    check_same_run(directory, body, config, options, backend)
    parts = {name: _read_part(directory, f"{name}.safetensors", body["files"]) for name in PARTS}
    for arrays in parts.values():
        check_params(config, {key: array.shape for key, array in arrays.items()})
    return TrainerState(step=int(body["step"]), **parts)


def run_record(config: GriffinConfig, options: TrainerOptions, backend: str, step: int) -> dict[str, Any]:
    """What a saved state says about itself, JSON-able; ``check_same_run`` compares it."""
    return {"step": step, "backend": backend, "config": config.to_dict(), "options": options.to_dict()}


def check_same_run(
    directory: Path, record: Mapping[str, Any], config: GriffinConfig, options: TrainerOptions, backend: str
) -> None:
    """Refuse the record of another run's state.

    Raises:
        CheckpointMismatch: naming the first difference.
    """
    _same(directory, "backend", record["backend"], backend)
    for field, value in config.to_dict().items():
        _same(directory, f"config {field}", record["config"].get(field), value)
    saved = {**LATER_OPTIONS, **record["options"]}
    for field, value in options.to_dict().items():
        _same(directory, field, saved.get(field), value)


def check_file(path: Path, expected: Mapping[str, object]) -> None:
    """Refuse a file that has not the size and the SHA-256 it was written with.

    Args:
        expected: its "size" and "sha256".

    Raises:
        CheckpointError: it is missing, no regular file, or damaged.
    """
    contained(path.parent, path.name)
    with named_errors(f"read {path}"):
        size = path.stat().st_size
    if size != expected["size"]:
        raise CheckpointError(f"{path} has {size} bytes, expected {expected['size']}; resume from another step")
    if file_digest(path) != expected["sha256"]:
        raise CheckpointError(f"{path} does not match its SHA-256; it was damaged; resume from another step")


def _read_part(directory: Path, name: str, files: Mapping[str, Mapping[str, object]]) -> dict[str, Array]:
    path = directory / name
    check_file(path, files[name])
    return map_tensors(path, read_header(path))


def _same(directory: Path, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise CheckpointMismatch(
            f"{directory} was saved with {what}={found!r}, this trainer has {expected!r}; make them equal"
        )
