"""Conversion: open any format, write any format, tensor by tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from griffin_core.checkpoints import framework_writing
from griffin_core.checkpoints.checkpoint import Progress
from griffin_core.checkpoints.detect import detect
from griffin_core.checkpoints.files import PART, named_errors, replacing
from griffin_core.checkpoints.formats import FORMATS, NATIVE, find_format, require_expressible
from griffin_core.checkpoints.hub import local
from griffin_core.checkpoints.journal import Journal
from griffin_core.checkpoints.manifest import MANIFEST_FILE, check_files
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.checkpoints.plan import Plan
from griffin_core.checkpoints.shards import parse_size, plan_shards
from griffin_core.checkpoints.target import check_room, check_target
from griffin_core.checkpoints.tensor_directory import Draft, plan_tensors, write_directory
from griffin_core.checkpoints.tensor_file import NotFinite
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, CheckpointMismatch, ConfigError

_MARGIN = 1 << 20
"""Bytes for the small files."""
_DESCRIPTION = 1 << 12
"""Bytes for what a framework's file says of one tensor."""


def plan(
    src: str | Path,
    to: str = NATIVE,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    verify: bool = True,
    progress: Progress | None = None,
    config: str | Path | GriffinConfig | None = None,
    window_convention: str | None = None,
    scratch: Path | None = None,
) -> Plan:
    """Open the source and plan its conversion; nothing is written.

    Args:
        scratch: as in ``open_checkpoint``; the others as in ``convert``.

    Raises:
        ConfigError: an unknown target format or dtype, an illegal shard size, or a config that the target cannot say.
        CheckpointError: the source is no checkpoint, or is damaged.
    """
    target = find_format(to)
    layout = target.layout
    if layout is not None and max_shard_size is not None:
        raise ConfigError(f"{to} is not written in shards; leave max_shard_size out")
    options: dict[str, Any] = {"config": config, "window_convention": window_convention, "scratch": scratch}
    src = local(src)  # once: a path on the Hub is asked for over the network
    late = verify and layout is None and _is_mapped(src)  # weights that pass by once are looked at as they do
    checkpoint = open_checkpoint(src, verify=verify and not late, values=False, progress=progress, **options)
    require_expressible(checkpoint.config, to)
    tensors = plan_tensors(checkpoint.config, checkpoint.params, dtype, target.one_dtype)
    kept = all(tensor.array.dtype.name == tensor.dtype for tensor in tensors)
    expected = checkpoint.digest if verify and kept else None
    if late and expected is None:
        checkpoint = open_checkpoint(src, verify=True, values=False, progress=progress, **options)
        tensors = plan_tensors(checkpoint.config, checkpoint.params, dtype, target.one_dtype)
    metadata = {**checkpoint.metadata, "converted_from": checkpoint.format}
    draft = Draft(to, checkpoint.config, tensors, checkpoint.tokenizer_files, metadata)
    shards = plan_shards(tensors, parse_size(max_shard_size)) if layout is None else ()
    return Plan(checkpoint, draft, shards, expected)


def _is_mapped(path: Path) -> bool:
    """Whether the source's tensors stand in files as they are, under canonical names."""
    found = detect(path) if path.exists() else None
    return found is not None and FORMATS[found].layout is None


def convert(
    src: str | Path,
    dst: str | Path,
    to: str = NATIVE,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    overwrite: bool = False,
    verify: bool = True,
    progress: Progress | None = None,
    config: str | Path | GriffinConfig | None = None,
    window_convention: str | None = None,
) -> Plan:
    """Convert a checkpoint. Tensors are streamed: memory holds a few blocks, never the model.

    A conversion to safetensors that was killed goes on where it stopped when it is asked for again.

    Args:
        src: a checkpoint of any format, told from its content; "hub:OWNER/NAME" downloads one.
        dst: the directory to make.
        to: the format to write, a name of ``formats.FORMATS``.
        dtype: as in ``native.save``, but for "huggingface", whose programs want one for all; None keeps each
            tensor's, and then its bytes are identical.
        max_shard_size: bytes per file, or a size such as "2GB"; for safetensors only.
        overwrite: replace a checkpoint of this library at ``dst``.
        verify: prove the source's integrity.
        progress: called with the number of bytes just written.
        config, window_convention: as in ``open_checkpoint``.

    Raises:
        ConfigError, CheckpointError: as in ``plan`` and ``execute``; nothing that is whole is left at ``dst``.
    """
    options: dict[str, Any] = {"config": config, "window_convention": window_convention}
    check_target(Path(dst).absolute().resolve(), overwrite)
    made = plan(src, to, dtype, max_shard_size, verify, scratch=scratch_directory(dst), **options)
    execute(made, dst, overwrite, progress)
    return made


def scratch_directory(dst: str | Path) -> Path:
    """Where temporary data of a conversion may stand: beside its destination."""
    place = Path(dst).absolute().resolve().parent
    with named_errors(f"write {place}"):
        place.mkdir(parents=True, exist_ok=True)
    return place


def execute(made: Plan, dst: str | Path, overwrite: bool = False, progress: Progress | None = None) -> None:
    """Write what a plan says; arguments as in ``convert``.

    Raises:
        CheckpointError: something is in the way, the disk refuses, a weight is not finite, or the source is damaged.
    """
    target = Path(dst).absolute().resolve()
    check_target(target, overwrite)
    try:
        made.draft.texts()  # refuses what is no tokenizer before anything is written
    except CheckpointError as error:
        raise CheckpointError(f"{made.checkpoint.path}: {error}") from error
    if not made.shards:
        check_room(target, made.nbytes + made.scratch + _MARGIN + _DESCRIPTION * len(made.draft.tensors))
        with _explained(made, target), replacing(target) as part:
            framework_writing.write(part, made.draft, progress, made.expected)
        return
    journal = Journal(_identity(made))
    with _explained(made, target), replacing(target, resume=True) as part:
        journal.begin(part)
        check_room(target, made.nbytes + _MARGIN - journal.nbytes)
        write_directory(part, made.draft, made.shards, journal, progress, made.expected)
        journal.end(part)


@contextlib.contextmanager
def _explained(made: Plan, target: Path) -> Iterator[None]:
    """Errors of writing with the source's file, and with what they mean for the conversion."""
    source = made.checkpoint
    try:
        yield
    except NotFinite as error:
        raise CheckpointError(f"{source.where(error.name)}: {error}") from error
    except CheckpointMismatch as error:
        if source.manifest is None:
            raise
        check_files(source.path, source.manifest)  # names the file
        raise CheckpointError(f"{source.path / MANIFEST_FILE}: {error}; copy the checkpoint again") from error
    except CheckpointError as error:
        if not made.shards or not isinstance(error.__cause__, OSError):
            raise
        part = target.with_name(target.name + PART)
        raise CheckpointError(
            f"{error}; finished shards are kept in {part}, and the same command goes on from there"
        ) from error.__cause__


def _identity(made: Plan) -> dict[str, Any]:
    """Everything that decides the bytes of the tensor files."""
    source = made.checkpoint
    if source.manifest is not None:
        origin: Any = source.manifest.weights_sha256
    else:
        paths = sorted(p for p in source.path.rglob("*") if p.is_file()) if source.path.is_dir() else [source.path]
        with named_errors(f"read {source.path}"):
            origin = [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in paths]
    shards = [[s.file, [[t.name, t.dtype, list(t.array.shape)] for t in s.tensors]] for s in made.shards]
    return {"source": origin, "config": source.config.digest(), "shards": shards}
