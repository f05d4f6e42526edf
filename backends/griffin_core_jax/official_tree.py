"""Which arrays an orbax checkpoint names, from its descriptions alone; nothing large is read.

::

    _METADATA     JSON: path and kind of every leaf
    checkpoint    msgpack, in older directories: the tree; a leaf is an array, or says that it stands elsewhere
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from griffin_core.checkpoints.files import named_errors
from griffin_core.errors import CheckpointError
from griffin_core_jax.official_packed import DEPTH, Keys, Other, Packed, read_packed

METADATA_FILE, PACKED_FILE = "_METADATA", "checkpoint"
CHECKPOINT_FILE, OCDBT_FILE = "_CHECKPOINT_METADATA", "manifest.ocdbt"
ITEMS = ("default", "params", "state")
"""Subdirectories of a step in which orbax's managers put a tree."""
WRAPPER = "params"
"""A single enclosing level that is no part of the names."""

_ARRAY = "np.ndarray"
_ARRAYS = (_ARRAY, "jax.Array")
_ELSEWHERE = ("PLACEHOLDER://", "AGGREGATED://")
_MOST_JSON = 10_000_000
_DICT_KEY = 2


@dataclass(frozen=True)
class Leaf:
    """One array of the tree.

    Attributes:
        key: orbax's own name of it, its path joined by dots.
        packed: where its bytes stand in the msgpack file; None when it is stored by itself.
    """

    key: str
    packed: Packed | None


@dataclass(frozen=True)
class Tree:
    """The arrays of a checkpoint by name, and whether they are of zarr's third version."""

    leaves: Mapping[str, Leaf]
    zarr3: bool


def find_item(path: Path) -> Path:
    """The directory that holds the tree: ``path`` itself, or the only item of a step.

    Raises:
        CheckpointError: there is none, or several.
    """
    with named_errors(f"read {path}"):
        if not path.is_dir():
            path.stat()
            raise CheckpointError(f"{path} is a file; expected the directory of an orbax checkpoint")
        items = [path] if _has_tree(path) else [path / name for name in ITEMS if _has_tree(path / name)]
        if len(items) == 1:
            return items[0]
        started = (path / OCDBT_FILE).exists()
    if items:
        raise CheckpointError(f"{path} holds several trees ({', '.join(item.name for item in items)}); name one")
    if started:
        raise CheckpointError(f"{path} is incomplete: {OCDBT_FILE} is there, {METADATA_FILE} is not; copy it again")
    raise CheckpointError(f"{path} is no orbax checkpoint; choose the directory with {METADATA_FILE} or {PACKED_FILE}")


def read_tree(directory: Path) -> Tree:
    """Every array that a checkpoint names.

    Raises:
        CheckpointError: a description is damaged, or a leaf is not an array; the leaf is named.
    """
    packed = read_packed(directory / PACKED_FILE) if (directory / PACKED_FILE).is_file() else {}
    if (directory / METADATA_FILE).is_file():
        kinds, zarr3 = _read_metadata(directory / METADATA_FILE)
    else:
        kinds, zarr3 = {keys: _kind(value) for keys, value in packed.items()}, False
    if not kinds:
        raise CheckpointError(f"{directory} holds an empty tree; expected named arrays")
    wrapped = all(keys[0] == WRAPPER and len(keys) > 1 for keys in kinds if keys)
    found = []
    for keys, kind in kinds.items():
        name, value = "/".join(keys[1:] if wrapped else keys), packed.get(keys)
        if not isinstance(value, Packed) and kind not in _ARRAYS:
            raise CheckpointError(f"{directory}: {name!r} is {kind}, not an array; expected arrays only")
        found.append((name, Leaf(".".join(keys), value if isinstance(value, Packed) else None)))
    if problem := problem_of_names(kinds):
        raise CheckpointError(f"{directory} {problem}; copy it again")
    return Tree(dict(found), zarr3)


def describe_tree(names: Iterable[str]) -> dict[str, bytes]:
    """The files that orbax wants beside arrays in a database, by name.

    Of versions of orbax from the time of the official code, those that read a tree need the msgpack file too.

    Args:
        names: paths joined by "/".
    """
    entries: dict[str, Any] = {}
    tree: dict[str, Any] = {}
    for name in names:
        keys = tuple(name.split("/"))
        entries[str(keys)] = {
            "key_metadata": [{"key": key, "key_type": _DICT_KEY} for key in keys],
            "value_metadata": {"value_type": _ARRAY, "skip_deserialize": False},
        }
        level: dict[str, Any] = tree
        for key in keys[:-1]:
            level = level.setdefault(key, {})
        level[keys[-1]] = _ELSEWHERE[0] + ".".join(keys)
    flags = {"use_ocdbt": True, "use_zarr3": False, "store_array_data_equal_to_fill_value": True}
    metadata = {"tree_metadata": entries, **flags, "custom_metadata": None}
    handler = "orbax.checkpoint._src.handlers.pytree_checkpoint_handler.PyTreeCheckpointHandler"
    times = {"init_timestamp_nsecs": None, "commit_timestamp_nsecs": None}
    checkpoint: dict[str, Any] = {"item_handlers": handler, "metrics": {}, **times, "custom_metadata": {}}
    return {
        PACKED_FILE: msgpack.packb(tree),
        METADATA_FILE: json.dumps(metadata).encode(),
        CHECKPOINT_FILE: json.dumps(checkpoint).encode(),
    }


def problem_of_names(paths: Iterable[Keys]) -> str | None:
    """Why a checkpoint cannot name its arrays so, or None.

    Keys are printable text without a slash; no two arrays share the name that joining keys by dots gives.
    """
    expected = f"expected at most {DEPTH} keys of printable text without a slash"
    owners: dict[str, Keys] = {}
    for keys in paths:
        joined = ".".join(keys)
        legal = all(key and key.isprintable() and "/" not in key for key in keys) and len(keys) <= DEPTH
        if not legal or not joined.strip("."):
            return f"names a tensor by the keys {str(list(keys))[:100]}; {expected}"
        if joined in owners:
            return f"names two tensors {joined!r}, by the keys {list(owners[joined])} and {list(keys)}"
        owners[joined] = keys
    return None


def _has_tree(path: Path) -> bool:
    return any((path / name).is_file() for name in (METADATA_FILE, PACKED_FILE))


def _kind(value: Packed | Other) -> str:
    if isinstance(value, Other) and not (isinstance(value.value, str) and value.value.startswith(_ELSEWHERE)):
        return value.kind
    return _ARRAY


def _read_metadata(path: Path) -> tuple[dict[Keys, str], bool]:
    """(kind of every leaf by its path, whether zarr's third version is used)."""
    with named_errors(f"read {path}"):
        if (size := path.stat().st_size) > _MOST_JSON:
            raise CheckpointError(f"{path} has {size} bytes, more than a tree takes; copy the checkpoint again")
        text = path.read_bytes()
    try:
        body = json.loads(text)
        found = [_entry(entry) for entry in body["tree_metadata"].values()]
        zarr3 = bool(body.get("use_zarr3"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise CheckpointError(f"{path} is damaged ({reason}); copy the checkpoint again") from error
    if len(dict(found)) < len(found):
        raise CheckpointError(f"{path} names a leaf twice; copy the checkpoint again")
    return dict(found), zarr3


def _entry(entry: Any) -> tuple[Keys, str]:
    """(path, kind) of a leaf; one that is stored in the msgpack file has no array's kind."""
    keys = tuple(key["key"] for key in entry["key_metadata"])
    value = entry["value_metadata"]
    kind = value["value_type"]
    if not all(isinstance(text, str) for text in (kind, *keys)):
        raise TypeError("a leaf is not named by texts")
    stored = kind in _ARRAYS and not value.get("skip_deserialize")
    return keys, kind if stored else f"a leaf of kind {kind[:40]!r}"
