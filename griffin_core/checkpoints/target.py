"""What may be written where: nothing is overwritten but a checkpoint of this library, and only when asked."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from griffin_core.checkpoints.files import named_errors
from griffin_core.checkpoints.manifest import MANIFEST_FILE, read_manifest
from griffin_core.errors import CheckpointError


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse to write over anything but an empty directory or, if asked, a checkpoint of this library.

    Raises:
        CheckpointError: saying what is in the way.
    """
    with named_errors(f"write {target}"):
        present = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else None
        if present is None and target.exists():
            raise CheckpointError(f"cannot write {target}: a file is in the way")
    if not present:
        return
    if MANIFEST_FILE not in present or not has_manifest(target):
        raise CheckpointError(f"{target} exists and is no checkpoint of this library; choose another directory")
    if not overwrite:
        raise CheckpointError(f"{target} already holds a checkpoint; choose another directory, or ask to overwrite it")
    ours = {name.split("/")[0] for name in read_manifest(target).files} | {MANIFEST_FILE}
    strangers = set(present) - ours
    if strangers:
        raise CheckpointError(f"{target} also holds {min(strangers)!r}, which overwriting would delete; move it away")


def check_room(target: Path, needed: int) -> None:
    """Refuse what the file system of ``target`` has no room for, before anything is written.

    Raises:
        CheckpointError: with both figures.
    """
    place = target
    while not place.exists():
        place = place.parent
    with named_errors(f"write {target}"):
        free = shutil.disk_usage(place).free
    if needed > free:
        raise CheckpointError(f"{target} needs {needed:,} bytes on disk, but {free:,} are free; make room")


def has_manifest(directory: Path) -> bool:
    """Whether the directory has a readable manifest of this library."""
    with contextlib.suppress(CheckpointError):
        read_manifest(directory)
        return True
    return False
