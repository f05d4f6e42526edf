"""A directory of safetensors files with canonical names: what the native and the Hugging Face format share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from griffin_core.checkpoints import manifest as manifests
from griffin_core.checkpoints.checkpoint import Progress
from griffin_core.checkpoints.files import write_file
from griffin_core.checkpoints.hf_config import CONFIG_FILE, to_exchange
from griffin_core.checkpoints.journal import Journal
from griffin_core.checkpoints.manifest import MANIFEST_FILE, FileRecord, Manifest
from griffin_core.checkpoints.shards import INDEX_FILE, Shard, index_json, read_layout
from griffin_core.checkpoints.sources import StoredTensor
from griffin_core.checkpoints.tensor_file import CODES, TensorOut, Written, map_tensors, write_tensors
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, CheckpointMismatch, ConfigError, nearest
from griffin_core.layouts.params import EMBEDDING, check_params, check_table, param_table
from griffin_core.shapes import Array
from griffin_core.text.tokenizer import TOKENIZER_FILES, special_ids


@dataclass(frozen=True)
class Draft:
    """A checkpoint to write, whatever the format.

    Attributes:
        format: name of the format.
        config: the architecture.
        tensors: in canonical order, each with the dtype that it shall have.
        tokenizer_files: content by file name.
        metadata: for the manifest.
    """

    format: str
    config: GriffinConfig
    tensors: tuple[TensorOut, ...]
    tokenizer_files: Mapping[str, bytes]
    metadata: Mapping[str, Any]

    @property
    def dtype(self) -> str:
        """The dtype of the weights, as the embedding has it."""
        return next(tensor.dtype for tensor in self.tensors if tensor.name == EMBEDDING)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def texts(self) -> dict[str, bytes]:
        """The small files: config and tokenizer."""
        for name in self.tokenizer_files:
            if name not in TOKENIZER_FILES:
                raise CheckpointError(f"{name!r} is no tokenizer file; {nearest(name, TOKENIZER_FILES)}")
        fields = to_exchange(self.config, self.dtype, special_ids(self.tokenizer_files))
        return {CONFIG_FILE: (json.dumps(fields, indent=2) + "\n").encode(), **self.tokenizer_files}


def plan_tensors(
    config: GriffinConfig, params: Mapping[str, Array], dtype: str | None, one_dtype: bool = False
) -> tuple[TensorOut, ...]:
    """Every parameter with the dtype that it shall have on disk, from names, shapes and dtypes only.

    Args:
        dtype: None keeps each tensor's.
        one_dtype: ``dtype`` is for all of them, even those that the parameter table keeps in float32.

    Raises:
        ConfigError: an unknown dtype.
        CheckpointMismatch: names or shapes are not the config's.
        CheckpointError: a weight's own dtype cannot be stored.
    """
    if dtype is not None and dtype not in CODES.values():
        raise ConfigError(f"unknown checkpoint dtype {dtype!r}; {nearest(dtype, CODES.values())}")
    check_params(config, {name: tuple(array.shape) for name, array in params.items()})
    tensors = []
    for row in param_table(config):
        array = params[row.name]
        kept = row.float32 and not one_dtype
        target = array.dtype.name if dtype is None or kept else dtype
        if target not in CODES.values():
            if dtype is None or target != "float64":
                raise CheckpointError(f"weight {row.name} is {target}; give dtype=, one of {', '.join(CODES.values())}")
            target = "float32"
        tensors.append(TensorOut(row.name, array, target))
    return tuple(tensors)


def open_tensors(directory: Path, listed: Collection[str]) -> tuple[dict[str, Array], dict[str, StoredTensor]]:
    """Every tensor of the directory, memory-mapped and read-only, and how it is stored.

    Args:
        listed: the files that belong to the checkpoint; no other is opened.

    Raises:
        CheckpointError: files and index disagree, or a file is damaged or leads outside.
    """
    params: dict[str, Array] = {}
    stored: dict[str, StoredTensor] = {}
    for file, infos in read_layout(directory, listed).items():
        params |= map_tensors(directory / file, infos)
        stored |= {name: StoredTensor(name, info.dtype, info.shape, file) for name, info in infos.items()}
    return params, stored


def matched(
    directory: Path, config: GriffinConfig, params: Mapping[str, Array], stored: Mapping[str, StoredTensor]
) -> dict[str, Array]:
    """The parameters in canonical order.

    Raises:
        CheckpointMismatch: names or shapes are not the config's; the file is named that has the first of them.
    """
    table = {row.name: row.shape for row in param_table(config)}
    shapes = {name: tuple(value.shape) for name, value in params.items()}
    try:
        check_table(table, shapes)
    except CheckpointMismatch as error:
        strange = [name for name in shapes if shapes[name] != table.get(name)]
        files = {stored[name].file for name in strange[:1] or stored}
        file = files.pop() if len(files) == 1 else INDEX_FILE
        raise CheckpointMismatch(f"{directory / file} and {CONFIG_FILE} disagree: {error}") from error
    return {name: params[name] for name in table}


def write_directory(
    part: Path,
    draft: Draft,
    shards: Sequence[Shard],
    journal: Journal | None = None,
    progress: Progress | None = None,
    expected: str | None = None,
) -> Manifest:
    """Fill an empty directory, or go on where ``journal`` says that it was left; the manifest comes last.

    Args:
        expected: the digest that the weights must turn out to have.

    Raises:
        CheckpointMismatch: they have another.
        CheckpointError: a weight is NaN or infinite, or the disk refuses.
    """
    texts = draft.texts()
    if len(shards) > 1:
        texts[INDEX_FILE] = index_json(shards)
    records: dict[str, FileRecord] = {}
    digests: dict[str, str] = {}
    for shard in shards:
        done = journal.finished(part, shard.file, progress) if journal else None
        if done is None:
            done = _write_shard(part, shard, progress)
            if journal:
                journal.note(part, shard.file, done)
        records[shard.file] = FileRecord(done.size, done.sha256)
        digests |= done.tensors
    return finish_directory(part, draft, texts, records, digests, expected)


def finish_directory(
    part: Path,
    draft: Draft,
    texts: Mapping[str, bytes],
    records: Mapping[str, FileRecord],
    digests: Mapping[str, str],
    expected: str | None = None,
) -> Manifest:
    """Write the small files and then the manifest.

    Args:
        records: the files that are there already.
        digests: SHA-256 of every canonical parameter in its dtype on disk.
        expected: the digest that the weights must turn out to have.

    Raises:
        CheckpointMismatch: they have another.
    """
    weights = _digest(draft, digests)
    if expected is not None and expected != weights:
        raise CheckpointMismatch("the weights that were read are not those of the source's manifest")
    found = dict(records)
    for name, data in texts.items():
        write_file(part / name, data)
        found[name] = FileRecord(len(data), hashlib.sha256(data).hexdigest())
    made = Manifest(
        files=found,
        weights_sha256=weights,
        config_sha256=draft.config.digest(),
        library_version=manifests.library_version(),
        metadata=dict(draft.metadata),
        format=draft.format,
    )
    write_file(part / MANIFEST_FILE, made.to_json().encode())
    return made


def _digest(draft: Draft, digests: Mapping[str, str]) -> str:
    """The digest of all weights from those of the single ones."""
    return manifests.weights_digest({t.name: (t.dtype, tuple(t.array.shape), digests[t.name]) for t in draft.tensors})


def _write_shard(part: Path, shard: Shard, progress: Progress | None) -> Written:
    """Under another name until it is whole and on disk."""
    path = part / (shard.file + ".part")
    done = write_tensors(path, shard.tensors, progress)
    path.rename(part / shard.file)
    return done
