"""Which tensor stands in which file, and the index that says so."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from griffin_core.checkpoints.files import contained, read_small
from griffin_core.checkpoints.tensor_file import TensorInfo, TensorOut, read_header
from griffin_core.errors import CheckpointError, ConfigError
from griffin_core.shapes import DTYPES

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_SHARD_SIZE = 2_000_000_000
"""Bytes of tensors per file unless said otherwise; a larger tensor has a file of its own."""

_SUFFIX = ".safetensors"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Shard:
    """One file and the tensors in it, in the order in which they stand there."""

    file: str
    tensors: tuple[TensorOut, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)


def parse_size(value: int | str | None) -> int:
    """Bytes of a size such as 2000000000, "500MB" or "2GB"; None is the default.

    Raises:
        ConfigError: it is not a positive size.
    """
    if value is None:
        return MAX_SHARD_SIZE
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", str(value).strip().upper())
    size = int(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
    if size < 1:
        raise ConfigError(f"shard size {value!r}; expected a positive number of bytes, or a size such as 500MB or 2GB")
    return size


def plan_shards(tensors: Sequence[TensorOut], max_shard_size: int) -> tuple[Shard, ...]:
    """Fill shards in the given order. Within a shard wider dtypes stand first, so every tensor is aligned."""
    groups: list[list[TensorOut]] = [[]]
    room = max_shard_size
    for tensor in tensors:
        if groups[-1] and tensor.nbytes > room:
            groups.append([])
            room = max_shard_size
        groups[-1].append(tensor)
        room -= tensor.nbytes
    names = [SINGLE_FILE]
    if len(groups) > 1:
        names = [f"model-{n:05d}-of-{len(groups):05d}.safetensors" for n in range(1, len(groups) + 1)]
    return tuple(Shard(name, _aligned(group)) for name, group in zip(names, groups, strict=True))


def index_json(shards: Sequence[Shard]) -> bytes:
    """The text of ``model.safetensors.index.json``."""
    weight_map = {tensor.name: shard.file for shard in shards for tensor in shard.tensors}
    total = sum(shard.nbytes for shard in shards)
    return (json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n").encode()


def read_layout(directory: Path, listed: Collection[str]) -> dict[str, dict[str, TensorInfo]]:
    """Every tensor of a checkpoint by shard file, from headers only.

    Args:
        listed: the files that belong to the checkpoint; no other is opened.

    Raises:
        CheckpointError: files and index disagree, or a file is damaged.
    """
    if INDEX_FILE not in listed:
        if SINGLE_FILE not in listed:
            raise CheckpointError(f"{directory} lists neither {SINGLE_FILE} nor {INDEX_FILE}; it holds no weights")
        return {SINGLE_FILE: read_header(contained(directory, SINGLE_FILE))}
    index = directory / INDEX_FILE
    weight_map = _read_index(directory)
    layout: dict[str, dict[str, TensorInfo]] = {}
    for file in sorted(set(weight_map.values())):
        if file not in listed or not file.endswith(_SUFFIX):
            raise CheckpointError(f"{index} names the shard {file!r}, which is not among its *{_SUFFIX} files")
        layout[file] = read_header(contained(directory, file))
    found = {name: file for file, infos in layout.items() for name in infos}
    for name in sorted(set(weight_map) ^ set(found)):
        if name in weight_map:
            raise CheckpointError(f"{index}: tensor {name!r} is not in {weight_map[name]}; copy the checkpoint again")
        raise CheckpointError(f"{index} lacks tensor {name!r}, which is in {found[name]}; copy the checkpoint again")
    for file, infos in layout.items():
        for name in infos:
            if weight_map[name] != file:
                raise CheckpointError(
                    f"{index} has tensor {name!r} in {weight_map[name]}, but it is in {file}; copy the checkpoint again"
                )
    return layout


def _aligned(group: Sequence[TensorOut]) -> tuple[TensorOut, ...]:
    return tuple(sorted(group, key=lambda tensor: -DTYPES[tensor.dtype].itemsize))


def _read_index(directory: Path) -> dict[str, str]:
    path = directory / INDEX_FILE
    try:
        weight_map = json.loads(read_small(directory, INDEX_FILE))["weight_map"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} is not an index of shards, or is damaged; copy it again") from error
    found: dict[str, str] = weight_map if isinstance(weight_map, dict) else {}
    if not found or not all(isinstance(file, str) for file in found.values()):
        raise CheckpointError(f"{path} is not an index of shards, or is damaged; copy it again")
    return found
