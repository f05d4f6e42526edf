"""The files of frameworks, official PyTorch, orbax and Keras, read through stores and tables of names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffin_core.checkpoints import keras_archive
from griffin_core.checkpoints.checkpoint import Checkpoint, Progress, check_against_manifest, verified
from griffin_core.checkpoints.detect import (
    KERAS_SHARDS,
    KERAS_SUFFIXES,
    TORCH_SUFFIXES,
    is_keras_file,
    is_torch_file,
    orbax_directory,
)
from griffin_core.checkpoints.files import contained, named_errors, read_small
from griffin_core.checkpoints.formats import FORMATS, KERAS, OFFICIAL_FLAX, OFFICIAL_TORCH, layout_of
from griffin_core.checkpoints.hf_config import CONFIG_FILE, SECTION, from_exchange, parse
from griffin_core.checkpoints.keras_config import archived_config, model_config
from griffin_core.checkpoints.manifest import MANIFEST_FILE, Manifest, read_manifest
from griffin_core.checkpoints.native import SMALL_FILES
from griffin_core.checkpoints.sources import Chosen, DeferredArray, Remembering, StoredTensor, TensorSource, Unprefixed
from griffin_core.checkpoints.stores import load_store
from griffin_core.checkpoints.tensor_file import CODES
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, CheckpointMismatch
from griffin_core.layouts.params import EMBEDDING, check_table, param_table
from griffin_core.layouts.places import Layout, Place, places, stored_table
from griffin_core.layouts.recognise import released_config
from griffin_core.shapes import Array
from griffin_core.text.sentencepiece_file import SENTENCEPIECE_FILE
from griffin_core.text.tokenizer import TOKENIZER_FILES

_FILES = {
    OFFICIAL_TORCH: ("torch files", TORCH_SUFFIXES, is_torch_file),
    KERAS: ("Keras files", KERAS_SUFFIXES, is_keras_file),
}
"""What holds the weights in a directory: its name, its suffixes, how it is told."""
_STACKED = 2
"""Tensors of a layer that hold two parameters each: the MLP's weights and biases."""


def read(
    path: Path,
    name: str,
    verify: bool = True,
    progress: Progress | None = None,
    values: bool = True,
    config: GriffinConfig | None = None,
    scratch: Path | None = None,
    origin: str = "the config given",
) -> Checkpoint:
    """Open a checkpoint of a framework; weights stay on disk until they are used.

    The config is the one given, else that of a ``config.json`` of ours beside the weights or of the model inside of
    a Keras file, else that of the released model with the same shapes.

    Args:
        path: a torch file, an orbax directory, a Keras file, or a directory that holds one of them.
        name: of the format.
        verify: compare files with the manifest where there is one, and refuse NaN and infinite weights.
        progress: called with the number of bytes just looked at.
        values: verifying looks at the values too.
        config: the config, where none stands beside the weights.
        scratch: a directory on disk for what cannot be memory-mapped; None uses memory.
        origin: what ``config`` was read from, for messages.

    Raises:
        CheckpointError: it is damaged, or its framework is not installed; the file or tensor is named.
        CheckpointMismatch: names or shapes are not the config's, or no config is known.
    """
    layout = layout_of(name)
    home = path if path.is_dir() else path.parent
    manifest = read_manifest(path) if path.is_dir() and (path / MANIFEST_FILE).exists() else None
    if manifest is not None:
        check_against_manifest(path, manifest, verify, SMALL_FILES, progress)
    weights = _weights(path, name, manifest)
    source = Remembering(_named(load_store(name).open_tensors(weights, scratch), layout), _STACKED)
    if verify and manifest is None:
        source.check()
    notes: list[str] = []
    if config is None:
        config, origin, notes = _config(home, source.stored, layout, weights, name)
    params = _params(weights, name, config, origin, source, notes)
    where = {place.canonical: place for place in places(config, layout)}
    found = Checkpoint(path, name, config, params, _tokenizer(weights), manifest, source.stored, where, tuple(notes))
    return verified(found, verify and values, progress)


def _named(source: TensorSource, layout: Layout) -> TensorSource:
    """What is the model's, under the layout's names: some writers put a word before every name."""
    source = Chosen(source, layout.owns)
    embedding = layout.place_of(EMBEDDING).stored
    prefixes = [name.removesuffix(embedding) for name in source.stored if name.endswith(embedding)]
    if len(prefixes) != 1 or not prefixes[0] or not all(name.startswith(prefixes[0]) for name in source.stored):
        return source
    return Unprefixed(source, prefixes[0])


def _weights(path: Path, name: str, manifest: Manifest | None) -> Path:
    """The file or the orbax directory itself."""
    if name == OFFICIAL_FLAX:
        return orbax_directory(path)
    if not path.is_dir():
        return path
    what, suffixes, fits = _FILES[name]
    if manifest is not None:
        found = [file for file in manifest.files if file.endswith(suffixes)]
    else:
        with named_errors(f"read {path}"):
            found = sorted(entry.name for entry in path.iterdir() if fits(entry))
    lists = [file for file in found if file.endswith(KERAS_SHARDS)]  # each belongs to the shards beside it
    if len(lists or found) != 1:
        raise CheckpointError(f"{path} holds {len(found)} {what} ({', '.join(found)}); give the path of one")
    found = lists or found
    return contained(path, found[0])


def _config(
    home: Path, stored: Mapping[str, StoredTensor], layout: Layout, weights: Path, name: str
) -> tuple[GriffinConfig, str, list[str]]:
    """The config beside or inside the weights or of a released model, where it is from, and what was assumed."""
    file = home / CONFIG_FILE
    text = read_small(home, CONFIG_FILE) if file.is_symlink() or file.exists() else b"{}"
    fields = parse(file, text)
    if SECTION not in fields and (home / MANIFEST_FILE).exists():
        raise CheckpointError(
            f"{file} has no section {SECTION!r}, though {MANIFEST_FILE} says that this library wrote it; copy it again"
        )
    beside = from_exchange(file, text) if SECTION in fields else None
    inside = archived_config(weights) if name == KERAS else None
    if name == KERAS and inside is None and "class_name" in fields:  # a model that Keras saved without an archive
        inside = model_config(file, fields)
    if beside is not None and inside not in (None, beside):
        raise CheckpointMismatch(f"{file} and the config inside of {weights} disagree; take one of them away")
    config = beside or inside
    if config is not None:
        return config, CONFIG_FILE, []
    try:
        preset, config = released_config({name: tensor.shape for name, tensor in stored.items()}, layout)
    except CheckpointMismatch as error:
        hint = f" ({file} has no section {SECTION!r})" if file.exists() else ""
        raise CheckpointMismatch(f"{weights}: {error}{hint}") from error
    return config, preset, [f"the shapes are those of {preset}, so its config is taken"]


def _params(
    path: Path, name: str, config: GriffinConfig, origin: str, source: TensorSource, notes: list[str]
) -> dict[str, Array]:
    """Canonical parameters, each read when its values are needed; embedding rows beyond the vocabulary are cut."""
    layout, phrases = layout_of(name), FORMATS[name].cannot(config)
    if phrases:
        raise CheckpointMismatch(
            f"{path} and {origin} disagree: no {name} checkpoint has {'; '.join(phrases)}; give its own config"
        )
    table = stored_table(config, layout)
    found = {name: tensor.shape for name, tensor in source.stored.items()}
    embedding = layout.place_of(EMBEDDING).stored
    rows = found.get(embedding, ())[:1]
    if rows and rows[0] > config.vocab_size and len(found[embedding]) == 2:
        found[embedding] = (config.vocab_size, *found[embedding][1:])
        notes.append(f"{embedding} has {rows[0]} rows; those beyond the vocabulary of {config.vocab_size} are left out")
    try:
        check_table(table, found)
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"{path} and {origin} disagree: {error}") from error
    for tensor in source.stored.values():
        if tensor.dtype not in CODES.values():
            raise CheckpointError(
                f"{path}: tensor {tensor.name!r} is {tensor.dtype}; expected {', '.join(CODES.values())}"
            )
    shapes = {row.name: row.shape for row in param_table(config)}
    return {place.canonical: _deferred(source, place, shapes[place.canonical]) for place in places(config, layout)}


def _deferred(source: TensorSource, place: Place, shape: tuple[int, ...]) -> Any:
    """One parameter: a view of its tensor, without rows that pad it."""

    def read() -> Array:
        return place.take(source.get(place.stored))[: shape[0]]

    return DeferredArray(shape, source.stored[place.stored].dtype, read)


def _tokenizer(weights: Path) -> dict[str, bytes]:
    """Tokenizer files beside the weights; downloads have a sentencepiece model one directory above the tree."""
    inside = weights if weights.is_dir() else weights.parent
    found = {name: read_small(inside, name) for name in TOKENIZER_FILES if (inside / name).is_file()}
    above = weights.parent / SENTENCEPIECE_FILE
    if not found and weights.is_dir() and above.is_file():
        found[SENTENCEPIECE_FILE] = read_small(above.parent, above.name)
    if not found and weights.suffix == KERAS_SUFFIXES[0]:  # the model saves its own into the archive
        return keras_archive.read_assets(weights, TOKENIZER_FILES)
    return found
