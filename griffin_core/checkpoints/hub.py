"""Checkpoints on the Hugging Face Hub: nothing is downloaded unless the path says so."""

from __future__ import annotations

import re
from pathlib import Path

from griffin_core.errors import CheckpointError, InputError

PREFIX = "hub:"
"""Begins a path that names a repository of the Hub, as in hub:google/recurrentgemma-2b or hub:OWNER/NAME@REVISION."""
PATTERNS = ("*.json", "*.safetensors", "tokenizer.model", "*.jinja")
"""Files that are fetched; never a pickle."""

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def local(path: str | Path) -> Path:
    """The path itself, or where the Hub's library has put the files of a ``hub:`` path.

    Raises:
        InputError: the name is not OWNER/NAME, or huggingface-hub is not installed.
        CheckpointError: the files cannot be had.
    """
    text = str(path)
    if not text.startswith(PREFIX):
        return Path(path)
    match = _NAME.fullmatch(text.removeprefix(PREFIX))
    if match is None:
        raise InputError(f"{text!r} names no repository; expected {PREFIX}OWNER/NAME, or {PREFIX}OWNER/NAME@REVISION")
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(f"{text} needs huggingface-hub; pip install 'griffin-core[hf]'") from error
    try:
        found = huggingface_hub.snapshot_download(
            match["repo"], revision=match["revision"], allow_patterns=list(PATTERNS)
        )
    except Exception as error:  # the library raises errors of its own, of its HTTP client and of the system
        words = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{text} cannot be downloaded ({words[:200]}); download it yourself and give its path"
        ) from error
    return Path(found)
