"""Decode states on disk: one safetensors file that knows which model it belongs to.

The tensors are the canonical state and the last tokens of each row; the header's metadata are strings: the format
and its version, the digests of the config and of the weights, the sampler's settings, and the SHA-256 of the whole
file (computed with that field zeroed). The size does not depend on how much text the state has seen.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import NoReturn

import numpy as np

from griffin_core.checkpoints.files import named_errors, sync, write_file
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, ConfigError, StateMismatch
from griffin_core.generation.engine import Engine
from griffin_core.generation.session import Session
from griffin_core.generation.tensor_bytes import header_of, pack, unpack
from griffin_core.layouts.states import POSITION, check_state, state_capacity
from griffin_core.sampling import Sampling
from griffin_core.shapes import Array

FORMAT = "griffin-core decode state"
VERSION = "1"
TAIL = 64
"""Tokens of each row that are kept; more when the repetition window is longer."""
TAIL_NAME = "tail"
"""The tensor that holds them: int32 [b TAIL], oldest first, -1 is empty."""

_ZEROS = b"0" * 64
_HEADER_LIMIT = 1 << 26


@dataclasses.dataclass(frozen=True)
class SavedState:
    """What a state file holds.

    Attributes:
        arrays: the canonical state.
        tails: the last tokens of each row, the one not yet consumed included.
        sampling: the settings it was generated with.
        config: digest of the config it belongs to.
        weights: digest of the weights it belongs to.
    """

    arrays: dict[str, Array]
    tails: tuple[tuple[int, ...], ...]
    sampling: Sampling
    config: str
    weights: str

    def session(self, engine: Engine, weights: str) -> Session:
        """The session to continue, on any backend and in any compute dtype.

        Args:
            weights: digest of the engine's weights.

        Raises:
            StateMismatch: the state belongs to another config or other weights.
        """
        if self.config != engine.config.digest():
            raise StateMismatch("the state belongs to a model of another config; load the checkpoint it was saved with")
        if self.weights != weights:
            raise StateMismatch(
                f"the state belongs to other weights ({self.weights[:12]}..., loaded are {weights[:12]}...); "
                "load the checkpoint it was saved with"
            )
        shapes = {name: value.shape for name, value in self.arrays.items()}
        check_state(engine.config, shapes)
        self._check_tails(engine.config)
        positions = tuple(int(p) for p in self.arrays[POSITION])
        capacity = state_capacity(engine.config, shapes)
        return Session(engine, engine.load_state(self.arrays), self.tails, positions, capacity)

    def _check_tails(self, config: GriffinConfig) -> None:
        rows = len(self.arrays[POSITION])
        if len(self.tails) != rows:
            raise StateMismatch(f"the state has the last tokens of {len(self.tails)} rows for {rows}; save it again")
        for tail in self.tails:
            if not tail:
                raise StateMismatch("the state has no last token to continue from; save it again")
            if not all(0 <= token < config.vocab_size for token in tail):
                raise StateMismatch(f"the state's last tokens {tail} are not in the vocabulary; save it again")


def save_state(path: str | Path, session: Session, sampling: Sampling, weights: str) -> int:
    """Write a session to a file, whole or not at all.

    Args:
        path: the file; an older one is replaced.
        sampling: the settings in use, which ``load_state`` gives back.
        weights: digest of the model's weights.

    Returns:
        Bytes written.

    Raises:
        CheckpointError: the file cannot be written.
    """
    engine = session.engine
    arrays = engine.module.dump_state(engine.config, session.state)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "config": engine.config.digest(),
        "weights": weights,
        "sampling": json.dumps(dataclasses.asdict(sampling)),
        "sha256": _ZEROS.decode(),
    }
    data = pack({**arrays, TAIL_NAME: _tails(session, max(TAIL, sampling.repetition_window))}, metadata)
    before, _, after = _split_digest(data)
    data = before + hashlib.sha256(data).hexdigest().encode() + after
    _write(Path(path), data)
    return len(data)


def check_writable(path: str | Path) -> None:
    """Refuse a target that cannot be written, before the work whose outcome it shall hold.

    Raises:
        CheckpointError: it is a directory, or its directory is missing or read-only.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"cannot write the state file {path}: it is a directory; give a file name")
    if not path.parent.is_dir():
        raise CheckpointError(f"cannot write the state file {path}: {path.parent} is no directory; make it first")
    if not os.access(path.parent, os.W_OK):
        raise CheckpointError(f"cannot write the state file {path}: {path.parent} is not writable; choose another")


def load_state(path: str | Path) -> SavedState:
    """Read a state file and prove that it is whole.

    Raises:
        CheckpointError: the file cannot be read.
        StateMismatch: it is no state file, of a newer version, or damaged.
    """
    path = Path(path)
    data = _read(path)
    metadata = _metadata(path, data)
    if metadata.get("version") != VERSION:
        _refuse(path, f"has version {metadata.get('version')!r}, this griffin-core reads {VERSION!r}; upgrade it")
    before, digest, after = _split_digest(data)
    if hashlib.sha256(before + _ZEROS + after).hexdigest().encode() != digest:
        _refuse(path, "is damaged (its SHA-256 does not match); use another copy")
    try:
        arrays = unpack(data)
        tails = tuple(tuple(row[row >= 0].tolist()) for row in arrays.pop(TAIL_NAME))
        sampling = Sampling(**json.loads(metadata["sampling"]))
        return SavedState(arrays, tails, sampling, metadata["config"], metadata["weights"])
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise StateMismatch(f"state file {path} cannot be understood ({error}); save it again") from error


def _tails(session: Session, keep: int) -> Array:
    tails = np.full((len(session.histories), keep), -1, np.int32)
    for row, history in enumerate(session.histories):
        last = history[-keep:]
        tails[row, keep - len(last) :] = last
    return tails


def _split_digest(data: bytes) -> tuple[bytes, bytes, bytes]:
    """A file's bytes before the digest, the digest, and the bytes after it."""
    field = b'"sha256":"'
    begin = data.index(field) + len(field)
    return data[:begin], data[begin : begin + 64], data[begin + 64 :]


def _write(path: Path, data: bytes) -> None:
    """Write beside the target and rename, so that a kill leaves the old file or the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with named_errors(f"write the state file {path}"):
        try:
            write_file(part, data)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync(path.parent)


def _read(path: Path) -> bytes:
    """The whole file, after a look at its header: a large foreign file is refused before it is read."""
    with named_errors(f"read the state file {path}"), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, _HEADER_LIMIT):
            _refuse(path, "is not a griffin state file, or is cut short; give a file that --save-state wrote")
        header = file.read(length)
        if FORMAT.encode() not in header or b'"sha256":"' not in header:
            _refuse(path, "is not a griffin state file; give a file that --save-state wrote")
        file.seek(0)
        return file.read()


def _metadata(path: Path, data: bytes) -> dict[str, str]:
    """The header's metadata. It is not yet known whether the file is whole."""
    try:
        return dict(header_of(data)["__metadata__"])
    except (ValueError, KeyError, RecursionError) as error:
        raise StateMismatch(f"state file {path} has a damaged header ({error}); use another copy") from error


def _refuse(path: Path, why: str) -> NoReturn:
    raise StateMismatch(f"state file {path} {why}")
