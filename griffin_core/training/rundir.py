"""A run on disk. Whatever moment it is killed at, what is there can be continued.

::

    run.json                 the run's spec and the digest of its text, sealed; written first
    config.json              the architecture, for people
    tokenizer/               the tokenizer's files
    metrics.jsonl            one line a step; cut back to the saved state on resume
    checkpoints/step-N/      trainer/ (weights, moments, step) and data.json (where the data stream stands)
    checkpoint/              the trained model, a native checkpoint; written at the end
    summary.json             final figures; written last
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from griffin_core.checkpoints.files import PART, named_errors, replacing, sync, write_file
from griffin_core.checkpoints.sealed import read_sealed, write_sealed
from griffin_core.errors import CheckpointError, InputError
from griffin_core.training.spec import TrainSpec, spec_from_dict

RUN_KIND = "griffin-core training run 1"
DATA_KIND = "griffin-core data state 1"
KEPT = 2
"""Saved states that are kept, newest first."""

_STEP = re.compile(r"step-(\d{8,})")


class RunDirectory:
    """Paths of a run and the only code that writes to them."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.run_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.summary_file = self.path / "summary.json"
        self.tokenizer = self.path / "tokenizer"
        self.checkpoints = self.path / "checkpoints"
        self.checkpoint = self.path / "checkpoint"
        self.plot = self.path / "loss.png"

    def create(self, spec: TrainSpec, corpus: str, tokenizer_files: Mapping[str, bytes]) -> None:
        """Begin a run in a directory that is new or empty; it appears whole or not at all.

        Args:
            corpus: digest of the text.

        Raises:
            InputError: something is there already.
            CheckpointError: the file system refuses.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            hint = "griffin train --resume it" if self.run_file.exists() else "look what it is"
            raise InputError(f"{self.path} is not empty; {hint}, or choose another --out")
        with replacing(self.path) as part:
            (part / self.checkpoints.name).mkdir()
            (part / self.tokenizer.name).mkdir()
            for name, data in tokenizer_files.items():
                write_file(part / self.tokenizer.name / name, data)
            write_file(part / "config.json", (spec.config.to_json() + "\n").encode())
            write_sealed(part / self.run_file.name, RUN_KIND, {"spec": spec.to_dict(), "corpus": corpus})

    def read(self) -> tuple[TrainSpec, str]:
        """The spec, and the digest of the text it began with.

        Raises:
            InputError: there is no run here.
            CheckpointError: its record is damaged.
        """
        if not self.run_file.exists():
            raise InputError(f"{self.path} holds no training run (no run.json); start one with griffin train --out")
        body = read_sealed(self.run_file, RUN_KIND)
        return spec_from_dict(body["spec"]), str(body["corpus"])

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; a kill lets go of it.

        Raises:
            InputError: another process is training here.
        """
        if os.name == "nt":
            yield
            return
        import fcntl

        with self.run_file.open("rb") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"another process is training in {self.path}; wait for it or stop it") from error
            yield

    def steps(self) -> list[int]:
        """Steps of the saved states, ascending."""
        names = (entry.name for entry in self.checkpoints.iterdir()) if self.checkpoints.is_dir() else ()
        return sorted(int(found[1]) for found in map(_STEP.fullmatch, names) if found)

    def state(self, step: int) -> Path:
        """The directory of one saved state."""
        return self.checkpoints / f"step-{step:08d}"

    def save_state(self, trainer: Any, data_state: Mapping[str, Any]) -> Path:
        """Write the trainer's state and the data stream's as one; older ones beyond ``KEPT`` go afterwards.

        Raises:
            CheckpointError: the disk refuses, or a weight is not finite.
        """
        target = self.state(trainer.step_number)
        with replacing(target) as part:
            trainer.save(part / "trainer")
            write_sealed(part / "data.json", DATA_KIND, {"step": trainer.step_number, "data": dict(data_state)})
        for step in self.steps()[:-KEPT]:
            self._discard(self.state(step))
        return target

    def load_state(self, step: int, trainer: Any) -> dict[str, Any]:
        """Put the trainer where a saved state stood; returns the data stream's state.

        Raises:
            CheckpointError: it is damaged; the file is named.
        """
        where = self.state(step)
        body = read_sealed(where / "data.json", DATA_KIND)
        trainer.restore(where / "trainer")
        if not trainer.step_number == body["step"] == step:
            raise CheckpointError(f"{where} holds the parts of different steps; remove it to resume from an older one")
        return dict(body["data"])

    def clean(self) -> None:
        """Remove what a kill left half-written."""
        if not self.checkpoints.is_dir():
            return
        for entry in self.checkpoints.iterdir():
            if entry.name.endswith(PART) and _STEP.fullmatch(entry.name.removesuffix(PART)):
                with named_errors(f"remove {entry}"):
                    shutil.rmtree(entry)

    def cut_metrics(self, step: int) -> None:
        """Keep the metrics up to a step, and whole lines only."""
        if not self.metrics_file.exists():
            return
        with named_errors(f"rewrite {self.metrics_file}"):
            kept = [line for line in self.metrics_file.read_text().splitlines(keepends=True) if _step_of(line) <= step]
            beside = self.metrics_file.with_name(self.metrics_file.name + PART)
            write_file(beside, "".join(kept).encode())
            beside.replace(self.metrics_file)
            sync(self.path)

    def metrics(self) -> list[dict[str, Any]]:
        """Every whole line of the metrics."""
        lines = self.metrics_file.read_text().splitlines(keepends=True) if self.metrics_file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def summary(self) -> dict[str, Any] | None:
        """The final figures, or None when the run is not finished."""
        if not self.summary_file.exists():
            return None
        found: dict[str, Any] = json.loads(self.summary_file.read_text())
        return found

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the final figures."""
        with named_errors(f"write {self.summary_file}"):
            beside = self.summary_file.with_name(self.summary_file.name + PART)
            write_file(beside, (json.dumps(summary, indent=1) + "\n").encode())
            beside.replace(self.summary_file)

    def _discard(self, directory: Path) -> None:
        """Take the name away first, so that a kill leaves no half-deleted state under it."""
        rest = directory.with_name(directory.name + PART)
        with named_errors(f"remove {directory}"):
            directory.rename(rest)
            shutil.rmtree(rest)


class MetricsLog:
    """Appends lines to a metrics file; each is handed to the system at once."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record as one line."""
        self._file.write(json.dumps(dict(record)) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Force the lines to disk: called before a state that follows them is saved."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _step_of(line: str) -> float:
    """The step of a metrics line; infinity for one that was cut short."""
    if not line.endswith("\n"):
        return float("inf")
    return float(json.loads(line)["step"])
