"""A trainer's whole state as a directory: weights, AdamW moments, step. Framework-neutral and verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from griffin_core.checkpoints.files import named_errors, replacing
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
        body = {
            "step": state.step,
            "backend": backend,
            "config": config.to_dict(),
            "options": options.to_dict(),
            "files": files,
        }
        write_sealed(part / STATE_FILE, KIND, body)


def load_trainer_state(directory: Path, config: GriffinConfig, options: TrainerOptions, backend: str) -> TrainerState:
    """The state in a directory, every file checked against its SHA-256; arrays are memory-mapped and read-only.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind.
        CheckpointMismatch: it belongs to another config, other options or another backend; the first difference
            is named.
    """
    body = read_sealed(directory / STATE_FILE, KIND)
    _same(directory, "backend", body["backend"], backend)
    for field, value in config.to_dict().items():
        _same(directory, f"config {field}", body["config"].get(field), value)
    saved = {**LATER_OPTIONS, **body["options"]}
    for field, value in options.to_dict().items():
        _same(directory, field, saved.get(field), value)
    parts = {name: _read_part(directory, f"{name}.safetensors", body["files"]) for name in PARTS}
    for arrays in parts.values():
        check_params(config, {key: array.shape for key, array in arrays.items()})
    return TrainerState(step=int(body["step"]), **parts)


def _read_part(directory: Path, name: str, files: Mapping[str, Mapping[str, object]]) -> dict[str, Array]:
    path = directory / name
    with named_errors(f"read {path}"):
        size = path.stat().st_size
    if size != files[name]["size"]:
        raise CheckpointError(f"{path} has {size} bytes, expected {files[name]['size']}; resume from another step")
    if file_digest(path) != files[name]["sha256"]:
        raise CheckpointError(f"{path} does not match its SHA-256; it was damaged; resume from another step")
    return map_tensors(path, read_header(path))


def _same(directory: Path, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise CheckpointMismatch(
            f"{directory} was saved with {what}={found!r}, this trainer has {expected!r}; make them equal"
        )
