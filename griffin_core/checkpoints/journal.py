"""Which shards of a conversion are finished, so that a killed one goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from griffin_core.checkpoints.files import empty_directory, named_errors, sync
from griffin_core.checkpoints.manifest import file_digest
from griffin_core.checkpoints.sealed import read_sealed, write_sealed
from griffin_core.checkpoints.tensor_file import Written
from griffin_core.errors import CheckpointError

JOURNAL_FILE = "journal.json"
_KIND = "griffin-core conversion journal 1"


class Journal:
    """The journal of one plan, kept inside the unfinished directory.

    Args:
        plan: everything that decides the bytes of the destination; another plan starts afresh.
    """

    def __init__(self, plan: Any) -> None:
        self.plan = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
        self._done: dict[str, Written] = {}

    def begin(self, part: Path) -> None:
        """Take over what an interrupted run of the same plan left; clear away everything else.

        Raises:
            CheckpointError: the file system refuses.
        """
        self._done = self._read(part)
        with named_errors(f"write {part}"):
            empty_directory(part, keep={JOURNAL_FILE, *self._done} if self._done else ())

    def finished(self, part: Path, file: str, progress: Callable[[int], None] | None = None) -> Written | None:
        """What was written to a file, if an earlier run finished it and it is still what it was."""
        done = self._done.get(file)
        path = part / file
        if done is None or not path.is_file() or path.stat().st_size != done.size:
            return None
        return done if file_digest(path, progress) == done.sha256 else None

    def note(self, part: Path, file: str, done: Written) -> None:
        """Remember a finished file; it must be on disk under its name.

        Raises:
            CheckpointError: the file system refuses.
        """
        self._done[file] = done
        fresh = part / (JOURNAL_FILE + ".part")
        write_sealed(fresh, _KIND, {"plan": self.plan, "done": {name: asdict(d) for name, d in self._done.items()}})
        with named_errors(f"write {part}"):
            fresh.rename(part / JOURNAL_FILE)
            sync(part)

    @property
    def nbytes(self) -> int:
        """Bytes of the finished files."""
        return sum(done.size for done in self._done.values())

    def end(self, part: Path) -> None:
        """Remove the journal: the directory is whole."""
        with named_errors(f"write {part}"):
            (part / JOURNAL_FILE).unlink(missing_ok=True)

    def _read(self, part: Path) -> dict[str, Written]:
        if not (part / JOURNAL_FILE).is_file():
            return {}
        try:
            body = read_sealed(part / JOURNAL_FILE, _KIND)
            done = {name: Written(**record) for name, record in body["done"].items()}
        except (CheckpointError, KeyError, TypeError, AttributeError):
            return {}  # what cannot be read is written again
        return done if body.get("plan") == self.plan else {}
