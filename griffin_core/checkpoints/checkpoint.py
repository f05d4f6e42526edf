"""A checkpoint opened for reading, of whatever format: one set of canonical parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from griffin_core.checkpoints.blocks import blocks
from griffin_core.checkpoints.manifest import Manifest, check_files, weights_digest
from griffin_core.checkpoints.sources import StoredTensor
from griffin_core.checks import count_not_finite
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError
from griffin_core.layouts.places import Place
from griffin_core.shapes import Array

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Checkpoint:
    """What was opened.

    Attributes:
        path: where it is.
        format: name of its format.
        config: the architecture.
        params: by canonical name, in canonical order; memory-mapped or deferred, so bytes are read when they are used.
        tokenizer_files: content by file name; empty when the checkpoint has no tokenizer.
        manifest: all files, their hashes, and the writer's metadata; None when another program wrote it.
        stored: every tensor under the name that it has in the checkpoint.
        places: place in the stored tensors by canonical name; empty where names and orientation are canonical.
        notes: what was assumed or left out in reading, one sentence each.
        digest: SHA-256 of the weights, equal in every format and however they are sharded; None when there is no
            manifest and nothing was verified.
    """

    path: Path
    format: str
    config: GriffinConfig
    params: Mapping[str, Array] = field(repr=False)
    tokenizer_files: Mapping[str, bytes] = field(repr=False)
    manifest: Manifest | None = field(repr=False)
    stored: Mapping[str, StoredTensor] = field(repr=False)
    places: Mapping[str, Place] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    digest: str | None = None

    @property
    def layout(self) -> dict[str, dict[str, StoredTensor]]:
        """The stored tensors by file ("" where the format spreads them over its own files)."""
        found: dict[str, dict[str, StoredTensor]] = {}
        for name, tensor in self.stored.items():
            found.setdefault(tensor.file, {})[name] = tensor
        return found

    def where(self, name: str) -> str:
        """The file that holds a parameter, and the tensor's name in it where that is another."""
        place = self.places.get(name)
        stored = name if place is None else place.stored
        file = self.stored[stored].file if stored in self.stored else ""
        path = self.path / file if self.path.is_dir() else self.path
        return str(path) if stored == name else f"{path}: tensor {stored!r}"

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of its files by name, as far as the manifest or the tensors tell them."""
        if self.manifest is not None:
            return {name: record.size for name, record in self.manifest.files.items()}
        home = self.path if self.path.is_dir() else self.path.parent
        names = [*filter(None, self.layout), *self.tokenizer_files]
        return {name: (home / name).stat().st_size for name in names if (home / name).is_file()}

    @property
    def metadata(self) -> dict[str, object]:
        """What its writer noted; empty when another program wrote it."""
        return {} if self.manifest is None else dict(self.manifest.metadata)


def verified(checkpoint: Checkpoint, verify: bool, progress: Progress | None = None) -> Checkpoint:
    """The checkpoint with the digest of its weights, after a look at every value if ``verify``.

    With a manifest its digest is given (its files are checked against it elsewhere).

    Raises:
        CheckpointError: a weight is NaN or infinite.
    """
    stated = None if checkpoint.manifest is None else checkpoint.manifest.weights_sha256
    if not verify:
        return replace(checkpoint, digest=stated)
    tensors: dict[str, tuple[str, tuple[int, ...], str]] = {}
    for name, value in checkpoint.params.items():
        own = hashlib.sha256()
        bad = 0
        for block in blocks(value, value.dtype.name):
            bad += count_not_finite(block)
            if stated is None:
                own.update(block.view("u1").data)
                if progress is not None:
                    progress(block.nbytes)
        if bad:
            raise CheckpointError(
                f"{checkpoint.where(name)}: weight {name} has {bad} values that are NaN or infinite; "
                "take an undamaged copy"
            )
        tensors[name] = (value.dtype.name, tuple(value.shape), own.hexdigest())
    return replace(checkpoint, digest=stated or weights_digest(tensors))


def check_against_manifest(
    path: Path, manifest: Manifest, verify: bool, always: Iterable[str], progress: Progress | None = None
) -> None:
    """Compare the files with the manifest: sizes, hashes of the small files in ``always``, and of all if ``verify``.

    Raises:
        CheckpointError: as in ``manifest.check_files``.
    """
    small = set(always)
    check_files(path, manifest, lambda name: verify or name in small, progress)
