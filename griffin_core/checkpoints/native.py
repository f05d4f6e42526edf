"""The native checkpoint: a Hugging Face style directory with our exact config and a manifest.

``config.json``, ``model.safetensors`` (or numbered shards and an index), the tokenizer's files and, last,
``manifest.json`` with the SHA-256 of each. Written beside and renamed, so it is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffin_core.checkpoints import manifest as manifests
from griffin_core.checkpoints.checkpoint import Checkpoint, Progress, check_against_manifest, verified
from griffin_core.checkpoints.detect import describe, detect
from griffin_core.checkpoints.files import OLD, read_small, replacing
from griffin_core.checkpoints.formats import HUGGINGFACE, NATIVE
from griffin_core.checkpoints.hf_config import CONFIG_FILE, from_exchange
from griffin_core.checkpoints.manifest import MANIFEST_FILE, Manifest
from griffin_core.checkpoints.shards import INDEX_FILE, parse_size, plan_shards
from griffin_core.checkpoints.target import check_target
from griffin_core.checkpoints.tensor_directory import Draft, matched, open_tensors, plan_tensors, write_directory
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError
from griffin_core.shapes import Array
from griffin_core.text.tokenizer import TOKENIZER_FILES

SMALL_FILES = (CONFIG_FILE, INDEX_FILE, *TOKENIZER_FILES)
"""Files that are hashed whenever they are read."""


def save(
    directory: str | Path,
    config: GriffinConfig,
    params: Mapping[str, Array],
    tokenizer_files: Mapping[str, bytes] | None = None,
    metadata: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Write a checkpoint. A kill at any moment leaves what was there before, or the whole new one.

    Args:
        params: float arrays by canonical name; written tensor by tensor, never copied as a whole.
        tokenizer_files: content by file name, as ``Tokenizer.files()`` gives.
        metadata: JSON-able facts to keep in the manifest.
        dtype: "float32", "float16" or "bfloat16" for the weights (those that the parameter table keeps in
            float32 stay as they are); None keeps each dtype.
        max_shard_size: bytes per file, or a size such as "2GB".
        overwrite: replace an existing checkpoint of this library, and nothing else.
        progress: called with the number of bytes just written.

    Returns:
        The manifest that was written.

    Raises:
        CheckpointMismatch: names or shapes are not the config's.
        CheckpointError: something is in the way, a weight is NaN or infinite, or the disk refuses.
        ConfigError: an unknown dtype or an illegal shard size.
    """
    target = Path(directory).absolute().resolve()
    draft = Draft(NATIVE, config, plan_tensors(config, params, dtype), tokenizer_files or {}, metadata or {})
    shards = plan_shards(draft.tensors, parse_size(max_shard_size))
    check_target(target, overwrite)
    draft.texts()  # refuses what is no tokenizer before anything is written
    with replacing(target) as part:
        return write_directory(part, draft, shards, progress=progress)


def read(
    directory: str | Path, verify: bool = True, progress: Progress | None = None, values: bool = True
) -> Checkpoint:
    """Open a checkpoint. Weights stay on disk, memory-mapped.

    Args:
        verify: also hash every file and refuse NaN and infinite weights (reads all bytes once or twice).
        progress: called with the number of bytes just hashed.
        values: verifying looks at the values too.

    Raises:
        CheckpointError: it is not a native checkpoint, or is damaged, cut short or unreadable; the file is named.
        CheckpointMismatch: names or shapes are not the config's.
    """
    directory = Path(directory)
    _require_native(directory)
    manifest = manifests.read_manifest(directory)
    check_against_manifest(directory, manifest, verify, SMALL_FILES, progress)
    if CONFIG_FILE not in manifest.files:
        raise CheckpointError(f"{directory / MANIFEST_FILE} does not list {CONFIG_FILE}; the checkpoint is incomplete")
    config = from_exchange(directory / CONFIG_FILE, read_small(directory, CONFIG_FILE))
    tokenizer = {name: read_small(directory, name) for name in manifest.files if name in TOKENIZER_FILES}
    params, stored = open_tensors(directory, manifest.files)
    ordered = matched(directory, config, params, stored)
    return verified(Checkpoint(directory, NATIVE, config, ordered, tokenizer, manifest, stored), verify and values)


def _require_native(directory: Path) -> None:
    if not directory.exists() and (old := directory.with_name(directory.name + OLD)).exists():
        raise CheckpointError(f"{directory} is gone, but an interrupted writer left the last one; rename {old} back")
    found = detect(directory)
    if found != NATIVE:
        hint = f"it has no {MANIFEST_FILE}: if it is a native checkpoint, it is unfinished"
        expected = hint if found == HUGGINGFACE else f"expected {describe(NATIVE)}"
        raise CheckpointError(f"{directory} is {describe(found)}; {expected}")
