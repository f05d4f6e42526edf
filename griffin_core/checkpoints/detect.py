"""Tell a checkpoint's format from what is on disk. Nothing is unpickled and no framework is imported."""

from __future__ import annotations

from pathlib import Path

from griffin_core.checkpoints.files import named_errors
from griffin_core.checkpoints.manifest import MANIFEST_FILE

NATIVE = "native"

FORMATS: dict[str, str] = {
    NATIVE: "a native checkpoint of this library",
    "huggingface": "a Hugging Face style directory (config.json and tensors, no manifest.json of this library)",
    "recurrentgemma-flax": "an orbax directory, as the official Flax code writes",
    "recurrentgemma-torch": "a torch file, as the official PyTorch code writes",
}
"""Known formats and what each looks like. Those after the first are recognised, not yet read or written."""

_ORBAX = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "checkpoint")


def detect(path: Path) -> str | None:
    """The name of the format at ``path``, or None when nothing known is there.

    Raises:
        CheckpointError: the path does not exist or cannot be looked at.
    """
    with named_errors(f"read {path}"):
        if not path.is_dir():
            path.stat()
            return "recurrentgemma-torch" if _is_torch_file(path) else None
        names = {entry.name for entry in path.iterdir()}
        if MANIFEST_FILE in names:
            return NATIVE
        if names & set(_ORBAX):
            return "recurrentgemma-flax"
        if "config.json" in names or any(name.endswith(".safetensors") for name in names):
            return "huggingface"
        if any(_is_torch_file(path / name) for name in names if name.endswith(".pt")):
            return "recurrentgemma-torch"
    return None


def describe(found: str | None) -> str:
    """A detected format in words, and what to do about it."""
    if found is None:
        return f"no checkpoint; expected a directory with config.json, *.safetensors and {MANIFEST_FILE}"
    if found == NATIVE:
        return FORMATS[NATIVE]
    hint = "; if it is a native checkpoint, it is unfinished" if found == "huggingface" else ""
    return f"{FORMATS[found]}; this version reads only {NATIVE}{hint}"


def _is_torch_file(path: Path) -> bool:
    """A zip or pickle with torch's suffix; only its first bytes are read."""
    if path.suffix not in (".pt", ".pth", ".bin") or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02")
