"""Tell a checkpoint's format from what is on disk. Nothing is unpickled and no framework is imported."""

from __future__ import annotations

from pathlib import Path

from griffin_core.checkpoints.files import named_errors
from griffin_core.checkpoints.formats import FORMATS, HUGGINGFACE, KERAS, NATIVE, OFFICIAL_FLAX, OFFICIAL_TORCH
from griffin_core.checkpoints.manifest import MANIFEST_FILE, read_manifest
from griffin_core.errors import CheckpointError

TORCH_SUFFIXES = (".pt", ".pth")
KERAS_SUFFIXES = (".keras", ".h5")
KERAS_SHARDS = ".weights.json"
_ORBAX = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "checkpoint")
_TORCH_STARTS = (b"PK", b"\x80\x02")
_KERAS_STARTS = (b"PK", b"\x89H")


def detect(path: Path) -> str | None:
    """The name of the format at ``path``, or None when nothing known is there.

    Raises:
        CheckpointError: the path does not exist or cannot be looked at.
    """
    with named_errors(f"read {path}"):
        if not path.is_dir():
            path.stat()
            return _of_file(path)
        names = {entry.name for entry in path.iterdir()}
        if MANIFEST_FILE in names:
            return _stated(path)
        if names & set(_ORBAX):
            return OFFICIAL_FLAX
        files = {_of_file(path / name) for name in names} - {None}
        safe = any(".safetensors" in name for name in names)
        if safe or ("config.json" in names and not files):
            return HUGGINGFACE
        if files:
            return OFFICIAL_TORCH if OFFICIAL_TORCH in files else KERAS
        if sum(_is_orbax(path / name) for name in names) == 1:
            return OFFICIAL_FLAX
    return None


def orbax_directory(path: Path) -> Path:
    """The orbax directory itself: ``path``, or the only one inside it, as downloads of the weights are laid out."""
    if _is_orbax(path):
        return path
    inner = [entry for entry in sorted(path.iterdir()) if _is_orbax(entry)]
    return inner[0] if len(inner) == 1 else path


def describe(found: str | None) -> str:
    """A detected format in words."""
    if found is None:
        return (
            "no checkpoint; expected a directory with config.json and *.safetensors, an orbax directory, a torch file "
            "or a Keras file"
        )
    return FORMATS[found].about


def is_torch_file(path: Path) -> bool:
    """A zip or pickle with torch's suffix; only its first bytes are read."""
    return _starts(path, TORCH_SUFFIXES, _TORCH_STARTS)


def is_keras_file(path: Path) -> bool:
    """A zip or an HDF5 file with a suffix of Keras's, or its list of shards; only the first bytes are read."""
    if path.name.endswith(KERAS_SHARDS):
        return path.is_file()
    return _starts(path, KERAS_SUFFIXES, _KERAS_STARTS)


def _starts(path: Path, suffixes: tuple[str, ...], starts: tuple[bytes, ...]) -> bool:
    if path.suffix not in suffixes or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) in starts


def _of_file(path: Path) -> str | None:
    if is_torch_file(path):
        return OFFICIAL_TORCH
    return KERAS if is_keras_file(path) else None


def _is_orbax(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in _ORBAX)


def _stated(path: Path) -> str:
    """The format that a manifest states; a damaged one is reported by who reads it."""
    try:
        return read_manifest(path).format
    except CheckpointError:
        return NATIVE
