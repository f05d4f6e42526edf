"""The native checkpoint: a Hugging Face style directory with our exact config and a manifest.

``config.json``, ``model.safetensors`` (or numbered shards and an index), the tokenizer's files and, last,
``manifest.json`` with the SHA-256 of each. Written beside and renamed, so it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from griffin_core.checkpoints import manifest as manifests
from griffin_core.checkpoints.detect import NATIVE, describe, detect
from griffin_core.checkpoints.files import OLD, named_errors, replacing, write_file
from griffin_core.checkpoints.hf_config import CONFIG_FILE, from_exchange, to_exchange
from griffin_core.checkpoints.manifest import MANIFEST_FILE, FileRecord, Manifest
from griffin_core.checkpoints.shards import INDEX_FILE, Shard, index_json, parse_size, plan_shards, read_layout
from griffin_core.checkpoints.tensor_file import CODES, TensorInfo, TensorOut, map_tensors, write_tensors
from griffin_core.checks import check_finite
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, ConfigError, nearest
from griffin_core.layouts.params import EMBEDDING, check_params, param_table
from griffin_core.shapes import Array
from griffin_core.text.tokenizer import TOKENIZER_FILES, special_ids

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint opened for reading.

    Attributes:
        config: the architecture.
        params: read-only arrays by canonical name, memory-mapped: bytes are read when they are used.
        tokenizer_files: content by file name; empty when the checkpoint has no tokenizer.
        digest: SHA-256 of the weights, equal however they are sharded.
        manifest: all files, their hashes, and the writer's metadata.
        layout: dtype, shape and place of every tensor, by shard file.
    """

    config: GriffinConfig
    params: Mapping[str, Array] = field(repr=False)
    tokenizer_files: Mapping[str, bytes] = field(repr=False)
    digest: str
    manifest: Manifest = field(repr=False)
    layout: Mapping[str, Mapping[str, TensorInfo]] = field(repr=False)


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
        overwrite: replace an existing native checkpoint, and nothing else.
        progress: called with the number of bytes just written.

    Returns:
        The manifest that was written.

    Raises:
        CheckpointMismatch: names or shapes are not the config's.
        CheckpointError: something is in the way, a weight is NaN or infinite, or the disk refuses.
        ConfigError: an unknown dtype or an illegal shard size.
    """
    target = Path(directory).absolute().resolve()
    shards = plan(config, params, dtype, max_shard_size)
    check_target(target, overwrite)
    texts = {CONFIG_FILE: _config_text(config, shards, tokenizer_files or {}), **_checked_names(tokenizer_files or {})}
    if len(shards) > 1:
        texts[INDEX_FILE] = index_json(shards)
    with replacing(target) as part:
        return _write(part, config, shards, texts, dict(metadata or {}), progress)


def plan(
    config: GriffinConfig,
    params: Mapping[str, Array],
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
) -> tuple[Shard, ...]:
    """The files that ``save`` would write for these weights, from names, shapes and dtypes only."""
    if dtype is not None and dtype not in CODES.values():
        raise ConfigError(f"unknown checkpoint dtype {dtype!r}; {nearest(dtype, CODES.values())}")
    check_params(config, {name: tuple(array.shape) for name, array in params.items()})
    tensors = []
    for row in param_table(config):
        array = params[row.name]
        target = array.dtype.name if dtype is None or row.float32 else dtype
        if target not in CODES.values():
            if dtype is None or target != "float64":
                raise CheckpointError(f"weight {row.name} is {target}; give dtype=, one of {', '.join(CODES.values())}")
            target = "float32"
        tensors.append(TensorOut(row.name, array, target))
    return plan_shards(tensors, parse_size(max_shard_size))


def read(directory: str | Path, verify: bool = True, progress: Progress | None = None) -> Checkpoint:
    """Open a checkpoint. Weights stay on disk, memory-mapped.

    Args:
        verify: also hash every file and refuse NaN and infinite weights (reads all bytes once or twice).
        progress: called with the number of bytes just hashed.

    Raises:
        CheckpointError: it is not a native checkpoint, or is damaged, cut short or unreadable; the file is named.
        CheckpointMismatch: names or shapes are not the config's.
    """
    directory = Path(directory)
    _require_native(directory)
    manifest = manifests.read_manifest(directory)
    manifests.check_files(directory, manifest, hashes=verify, progress=progress)
    if CONFIG_FILE not in manifest.files:
        raise CheckpointError(f"{directory / MANIFEST_FILE} does not list {CONFIG_FILE}; the checkpoint is incomplete")
    with named_errors(f"read {directory}"):
        config = from_exchange(directory / CONFIG_FILE, (directory / CONFIG_FILE).read_bytes())
        tokenizer = {n: (directory / n).read_bytes() for n in manifest.files if n in TOKENIZER_FILES}
    layout = read_layout(directory, manifest.files)
    check_params(config, {name: info.shape for infos in layout.values() for name, info in infos.items()})
    params: dict[str, Array] = {}
    for file, infos in layout.items():
        params |= map_tensors(directory / file, infos)
    ordered = {row.name: params[row.name] for row in param_table(config)}
    if verify:
        _check_values(directory, ordered)
    return Checkpoint(config, ordered, tokenizer, manifest.weights_sha256, manifest, layout)


def is_native(directory: Path) -> bool:
    """Whether the directory has a readable manifest of this library."""
    with contextlib.suppress(CheckpointError):
        manifests.read_manifest(directory)
        return True
    return False


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse to write over anything but an empty directory or, if asked, a native checkpoint.

    Raises:
        CheckpointError: saying what is in the way.
    """
    with named_errors(f"write {target}"):
        present = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else None
        if present is None and target.exists():
            raise CheckpointError(f"cannot write {target}: a file is in the way")
    if not present:
        return
    if MANIFEST_FILE not in present or not is_native(target):
        raise CheckpointError(f"{target} exists and is not a native checkpoint; choose another directory")
    if not overwrite:
        raise CheckpointError(f"{target} already holds a checkpoint; choose another directory, or ask to overwrite it")
    strangers = set(present) - set(manifests.read_manifest(target).files) - {MANIFEST_FILE}
    if strangers:
        raise CheckpointError(f"{target} also holds {min(strangers)!r}, which overwriting would delete; move it away")


def _write(
    part: Path,
    config: GriffinConfig,
    shards: Sequence[Shard],
    texts: Mapping[str, bytes],
    metadata: dict[str, Any],
    progress: Progress | None,
) -> Manifest:
    records: dict[str, FileRecord] = {}
    tensors: dict[str, tuple[str, tuple[int, ...], str]] = {}
    for shard in shards:
        done = write_tensors(part / shard.file, shard.tensors, progress)
        records[shard.file] = FileRecord(done.size, done.sha256)
        tensors |= {t.name: (t.dtype, tuple(t.array.shape), done.tensors[t.name]) for t in shard.tensors}
    for name, data in texts.items():
        write_file(part / name, data)
        records[name] = FileRecord(len(data), hashlib.sha256(data).hexdigest())
    made = Manifest(
        files=records,
        weights_sha256=manifests.weights_digest(tensors),
        config_sha256=config.digest(),
        library_version=manifests.library_version(),
        metadata=metadata,
    )
    write_file(part / MANIFEST_FILE, made.to_json().encode())
    return made


def _config_text(config: GriffinConfig, shards: Sequence[Shard], tokenizer_files: Mapping[str, bytes]) -> bytes:
    dtype = next(t.dtype for shard in shards for t in shard.tensors if t.name == EMBEDDING)
    fields = to_exchange(config, dtype, special_ids(tokenizer_files))
    return (json.dumps(fields, indent=2) + "\n").encode()


def _checked_names(tokenizer_files: Mapping[str, bytes]) -> Mapping[str, bytes]:
    for name in tokenizer_files:
        if name not in TOKENIZER_FILES:
            raise CheckpointError(f"{name!r} is no tokenizer file; {nearest(name, TOKENIZER_FILES)}")
    return tokenizer_files


def _require_native(directory: Path) -> None:
    if not directory.exists() and (old := directory.with_name(directory.name + OLD)).exists():
        raise CheckpointError(f"{directory} is gone, but an interrupted writer left the last one; rename {old} back")
    found = detect(directory)
    if found != NATIVE:
        raise CheckpointError(f"{directory} is {describe(found)}")


def _check_values(directory: Path, params: Mapping[str, Array]) -> None:
    try:
        check_finite(params)
    except CheckpointError as error:
        raise CheckpointError(f"{directory}: {error}") from error
