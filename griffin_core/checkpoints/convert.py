"""Conversion: read any format that is read, write any that is written, tensor by tensor.

A format joins by a row in ``READERS`` or ``WRITERS`` (its name and look are in ``detect.FORMATS``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from griffin_core.checkpoints import native
from griffin_core.checkpoints.detect import FORMATS, NATIVE, describe, detect
from griffin_core.checkpoints.native import Checkpoint, Progress
from griffin_core.checkpoints.shards import Shard
from griffin_core.checkpoints.tensor_file import WORKING_BYTES
from griffin_core.errors import CheckpointError, ConfigError, nearest

READERS: dict[str, Callable[..., Checkpoint]] = {NATIVE: native.read}
"""``read(path, verify, progress) -> Checkpoint`` by format."""
WRITERS: dict[str, Callable[..., Any]] = {NATIVE: native.save}
"""``save(directory, config, params, tokenizer_files, metadata, dtype, max_shard_size, overwrite, progress)``."""


@dataclass(frozen=True)
class Plan:
    """What a conversion will do, known from headers alone.

    Attributes:
        source_format, target_format: names in ``detect.FORMATS``.
        checkpoint: the opened source.
        shards: files to write and the tensors in them, with their target dtypes.
        dtype, max_shard_size: as they were asked for.
    """

    source_format: str
    target_format: str
    checkpoint: Checkpoint
    shards: tuple[Shard, ...]
    dtype: str | None = None
    max_shard_size: int | str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of tensors to write."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def peak(self) -> int:
        """Bytes of memory that writing takes: a few blocks of one tensor, however large the model is."""
        return WORKING_BYTES

    def rows(self) -> list[dict[str, Any]]:
        """One row per tensor: source name and dtype, target name and dtype, transform, shape, shard, bytes."""
        return [
            {
                "source": tensor.name,
                "target": tensor.name,
                "transform": "none" if tensor.array.dtype.name == tensor.dtype else "cast",
                "source_dtype": tensor.array.dtype.name,
                "dtype": tensor.dtype,
                "shape": list(tensor.array.shape),
                "shard": shard.file,
                "bytes": tensor.nbytes,
            }
            for shard in self.shards
            for tensor in shard.tensors
        ]


def plan(
    src: str | Path,
    to: str = NATIVE,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> Plan:
    """Open the source and plan its conversion; nothing is written.

    Raises:
        ConfigError: an unknown target format or dtype, or an illegal shard size.
        CheckpointError: the source is of a format that is not read yet, or is damaged.
    """
    if to not in FORMATS:
        raise ConfigError(f"unknown format {to!r}; {nearest(to, FORMATS)}")
    if to not in WRITERS:
        raise ConfigError(f"{to} is not written by this version; it writes {', '.join(WRITERS)}")
    found = detect(Path(src))
    if found not in READERS:
        raise CheckpointError(f"{src} cannot be converted: it is {describe(found)}")
    checkpoint = READERS[found](src, verify=verify, progress=progress)
    shards = native.plan(checkpoint.config, checkpoint.params, dtype, max_shard_size)
    return Plan(found, to, checkpoint, shards, dtype, max_shard_size)


def convert(
    src: str | Path,
    dst: str | Path,
    to: str = NATIVE,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    overwrite: bool = False,
    verify: bool = True,
    progress: Progress | None = None,
) -> Plan:
    """Convert a checkpoint. Tensors are streamed: memory holds a few blocks, never the model.

    Args:
        src: a checkpoint; its format is detected from its content.
        dst: the directory to make.
        to: the format to write; for now "native" (re-shard, change dtype).
        dtype: as in ``native.save``; None keeps each tensor's, and then its bytes are identical.
        max_shard_size: bytes per file, or a size such as "2GB".
        overwrite: replace a native checkpoint at ``dst``.
        verify: prove the source's integrity first.
        progress: called with the number of bytes just written.

    Raises:
        ConfigError, CheckpointError: as in ``plan`` and ``native.save``; nothing is left at ``dst``.
    """
    made = plan(src, to, dtype, max_shard_size, verify)
    execute(made, dst, overwrite, progress)
    return made


def execute(made: Plan, dst: str | Path, overwrite: bool = False, progress: Progress | None = None) -> None:
    """Write what a plan says; arguments and errors as in ``convert``."""
    checkpoint = made.checkpoint
    WRITERS[made.target_format](
        dst,
        checkpoint.config,
        checkpoint.params,
        checkpoint.tokenizer_files,
        metadata={**checkpoint.manifest.metadata, "converted_from": made.source_format},
        dtype=made.dtype,
        max_shard_size=made.max_shard_size,
        overwrite=overwrite,
        progress=progress,
    )
