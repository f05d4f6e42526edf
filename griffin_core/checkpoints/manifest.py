"""The manifest of a checkpoint that we wrote: size and SHA-256 of every file, and the digest of the weights.

It is written last, so a directory without one is unfinished or not ours. It carries a hash of itself, so a flipped
bit anywhere in the directory is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from griffin_core.checkpoints.files import contained, is_plain, named_errors, read_small
from griffin_core.checkpoints.formats import FORMATS, NATIVE
from griffin_core.checkpoints.tensor_file import tensor_digest
from griffin_core.errors import CheckpointError
from griffin_core.shapes import Array

MANIFEST_FILE = "manifest.json"
FORMAT = "griffin-core {} checkpoint"
"""What the manifest says it belongs to, with the format's name."""
FORMAT_VERSION = 1

_FORMATS = {FORMAT.format(name): name for name in FORMATS}
_SELF = "manifest_sha256"
_BLOCK = 1 << 22


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint consists of.

    Attributes:
        files: record by file name, relative to the directory; the manifest itself is not among them.
        weights_sha256: digest over names, dtypes, shapes and values of the weights, however they are sharded.
        config_sha256: ``GriffinConfig.digest()``.
        library_version: the griffin-core that wrote it.
        metadata: JSON-able facts of the writer (step of a training run, source of a conversion).
        format: name of the format in which the directory is written.
    """

    files: dict[str, FileRecord]
    weights_sha256: str
    config_sha256: str
    library_version: str
    metadata: dict[str, Any]
    format: str = NATIVE

    def body(self) -> dict[str, Any]:
        """Everything in ``manifest.json`` but the hash over it."""
        own = {"format": FORMAT.format(self.format), "format_version": FORMAT_VERSION}
        return {**own, **{name: value for name, value in asdict(self).items() if name != "format"}}

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        body = self.body()
        return json.dumps({**body, _SELF: _self_hash(body)}, indent=2) + "\n"


def library_version() -> str:
    """The installed version of griffin-core ("unknown" when it runs from a bare source tree)."""
    try:
        return version("griffin-core")
    except PackageNotFoundError:
        return "unknown"


def weights_digest(tensors: Mapping[str, tuple[str, tuple[int, ...], str]]) -> str:
    """Digest of a set of weights.

    Args:
        tensors: (dtype, shape, SHA-256 of the bytes) by canonical name.
    """
    rows = [[name, dtype, list(shape), digest] for name, (dtype, shape, digest) in sorted(tensors.items())]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def digest_params(params: Mapping[str, Array]) -> str:
    """The weights digest of arrays in memory: equal to that of a checkpoint saved from them."""
    return weights_digest({name: (a.dtype.name, a.shape, tensor_digest(a)) for name, a in params.items()})


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a checkpoint directory; no other file is looked at.

    Raises:
        CheckpointError: there is none, it is damaged, or another version of the format.
    """
    path = directory / MANIFEST_FILE
    text = read_small(directory, MANIFEST_FILE)
    try:
        body = json.loads(text)
        own = body.pop(_SELF)
        kind, number = body.pop("format"), body.pop("format_version")
        body["files"] = {name: FileRecord(**record) for name, record in body["files"].items()}
        manifest = Manifest(**body, format=_FORMATS.get(kind, NATIVE))
        matches = own == _self_hash(manifest.body())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a manifest of this library, or is damaged; copy it again") from error
    if kind not in _FORMATS or number != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} is {kind!r} version {number!r}; expected {FORMAT.format(NATIVE)!r} version {FORMAT_VERSION}"
        )
    if not matches:
        raise CheckpointError(f"{path} does not match its own hash, so it was changed or damaged; copy it again")
    _check_entries(path, manifest)
    return manifest


def check_files(
    directory: Path,
    manifest: Manifest,
    hashes: Callable[[str], bool] = lambda name: True,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Compare every file with the manifest: presence and size, and the SHA-256 of those that ``hashes`` chooses.

    Raises:
        CheckpointError: naming the first file that is missing, of another size, or changed.
    """
    for name, record in manifest.files.items():
        path = contained(directory, name)
        with named_errors(f"read {path}"):
            size = path.stat().st_size
        if size != record.size:
            raise CheckpointError(f"{path} has {size} bytes, expected {record.size}; copy it again")
        if hashes(name) and file_digest(path, progress) != record.sha256:
            raise CheckpointError(f"{path} does not match its SHA-256 in {MANIFEST_FILE}; it was changed or damaged")


def file_digest(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with named_errors(f"read {path}"), path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            if progress is not None:
                progress(len(block))
    return digest.hexdigest()


def _self_hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _check_entries(path: Path, manifest: Manifest) -> None:
    kinds = {"weights_sha256": str, "config_sha256": str, "library_version": str, "metadata": dict}
    for field, kind in kinds.items():
        if not isinstance(getattr(manifest, field), kind):
            raise CheckpointError(f"{path} has a damaged {field}; copy it again")
    for name, record in manifest.files.items():
        if name == MANIFEST_FILE or not is_plain(name):
            raise CheckpointError(f"{path} names the file {name!r}, which is no plain file name; nothing was read")
        if not isinstance(record.size, int) or not isinstance(record.sha256, str):
            raise CheckpointError(f"{path} has a damaged entry for {name!r}; copy it again")
