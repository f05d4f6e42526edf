"""Directories of Hugging Face transformers: canonical names already, and a config to translate.

Files found in the wild differ: embeddings with rows beyond the vocabulary, an output projection stored beside the
embedding that it equals, and ``attention_window_size`` that counts otherwise (``hf_foreign``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from griffin_core.checkpoints.checkpoint import Checkpoint, Progress, check_against_manifest, verified
from griffin_core.checkpoints.files import named_errors, read_small
from griffin_core.checkpoints.formats import HUGGINGFACE
from griffin_core.checkpoints.hf_config import CONFIG_FILE, parse
from griffin_core.checkpoints.hf_foreign import from_fields
from griffin_core.checkpoints.manifest import MANIFEST_FILE, Manifest, read_manifest
from griffin_core.checkpoints.native import SMALL_FILES
from griffin_core.checkpoints.shards import INDEX_FILE, SINGLE_FILE
from griffin_core.checkpoints.tensor_directory import matched, open_tensors
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError
from griffin_core.layouts.params import EMBEDDING, LM_HEAD
from griffin_core.shapes import Array
from griffin_core.text.tokenizer import TOKENIZER_FILES

_PICKLE_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_ROWS = 1 << 12


def read(
    directory: Path,
    verify: bool = True,
    progress: Progress | None = None,
    values: bool = True,
    window_convention: str | None = None,
) -> Checkpoint:
    """Open a directory. Weights stay on disk, memory-mapped.

    Args:
        verify: compare files with the manifest where there is one, and refuse NaN and infinite weights.
        progress: called with the number of bytes just looked at.
        values: verifying looks at the values too.
        window_convention: what the window of a foreign config counts (``hf_foreign.WINDOW_CONVENTIONS``).

    Raises:
        CheckpointError: it is damaged, cut short, or of another family; the file or tensor is named.
        CheckpointMismatch: names or shapes are not the config's.
        ConfigError: a window convention that is unknown or not needed.
    """
    manifest, listed = _listing(directory, verify, progress)
    path = directory / CONFIG_FILE
    fields = parse(path, read_small(directory, CONFIG_FILE))
    tokenizer = {name: read_small(directory, name) for name in TOKENIZER_FILES if name in listed}
    config, notes = from_fields(path, fields, window_convention)
    params, stored = open_tensors(directory, listed)
    params, more = _trimmed(directory, config, params)
    ordered = matched(directory, config, params, stored)
    found = Checkpoint(directory, HUGGINGFACE, config, ordered, tokenizer, manifest, stored, notes=(*notes, *more))
    return verified(found, verify and values, progress)


def _listing(directory: Path, verify: bool, progress: Progress | None) -> tuple[Manifest | None, list[str]]:
    """The manifest if there is one, and the files that belong to the checkpoint."""
    with named_errors(f"read {directory}"):
        present = sorted(entry.name for entry in directory.iterdir())
    manifest = read_manifest(directory) if MANIFEST_FILE in present else None
    listed = present if manifest is None else list(manifest.files)
    if manifest is not None:
        check_against_manifest(directory, manifest, verify, SMALL_FILES, progress)
    if CONFIG_FILE not in listed:
        raise CheckpointError(f"{directory} has no {CONFIG_FILE}; put it beside the weights")
    if not {INDEX_FILE, SINGLE_FILE} & set(listed) and (pickled := set(_PICKLE_FILES) & set(listed)):
        raise CheckpointError(
            f"{directory} holds its weights in {min(pickled)}, a pickle, which is not opened; "
            "save them as safetensors with transformers first"
        )
    return manifest, listed


def _trimmed(directory: Path, config: GriffinConfig, params: Mapping[str, Array]) -> tuple[dict[str, Array], list[str]]:
    """The parameters without padding rows and without an output projection that only repeats the embedding."""
    found, notes = dict(params), []
    for name in (EMBEDDING, LM_HEAD):
        rows = found[name].shape[0] if name in found and found[name].ndim == 2 else 0
        if rows > config.vocab_size:
            found[name] = found[name][: config.vocab_size]
            notes.append(f"{name} has {rows} rows; those beyond the vocabulary of {config.vocab_size} are left out")
    if config.tie_embeddings and LM_HEAD in found and EMBEDDING in found:
        if not _equal(found[LM_HEAD], found[EMBEDDING]):
            raise CheckpointError(
                f"{directory}: {LM_HEAD} differs from {EMBEDDING}, but config.json ties them; "
                "set tie_word_embeddings to false there, or delete the tensor"
            )
        del found[LM_HEAD]
        notes.append(f"{LM_HEAD} equals {EMBEDDING} and is left out")
    return found, notes


def _equal(one: Array, other: Array) -> bool:
    """Bit for bit, in blocks of rows."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return all(
        np.array_equal(one[row : row + _ROWS].view("u1"), other[row : row + _ROWS].view("u1"))
        for row in range(0, one.shape[0], _ROWS)
    )
