"""The index of a checkpoint in several files says something else than the files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from griffin_core.checkpoints.shards import INDEX_FILE
from tests.checkpoints.corruption.cases import Case, Ground
from tests.checkpoints.corruption.edits import assemble, parse
from tests.checkpoints.corruption.sources import MODEL, reseal
from tests.checkpoints.corruption.texts import put

_FILES = (
    "..",
    "../outside",
    "/etc/passwd",
    "a\\b",
    "",
    ".",
    "./x",
    "a//b",
    "nul\0",
    "\ud800",
    "x" * 5000,
    "config.json",
    "\n",
    None,
    3,
    ["x"],
)


def wrong_index(ground: Ground) -> Iterator[Case]:
    """The index of the shards says something else than the shards."""
    index = json.loads((ground.home / MODEL / INDEX_FILE).read_text())["weight_map"]
    names, files = sorted(index), sorted(set(index.values()))
    for file in _FILES:
        name = ground.random.choice(names)
        yield _index_case(f"{name} in {file!r:.30}", {**index, name: file})
    for name in ground.some(names, 3):
        other = next(file for file in files if file != index[name])
        yield _index_case(f"{name} in another shard", {**index, name: other}, name)
        yield _index_case(f"no {name}", {n: f for n, f in index.items() if n != name}, name)
        yield _index_case(f"{name} under another name", {n + "x" * (n == name): f for n, f in index.items()}, name)
    yield _index_case("an unknown tensor", {**index, "x\ny": files[0]}, "x\\ny")
    yield _index_case("nothing in a shard", {n: f for n, f in index.items() if f != files[0]})
    for label, body in {"no map": {}, "an empty map": {"weight_map": {}}, "a list": {"weight_map": [1]}}.items():
        yield _index_text(label, json.dumps(body))
    many = dict.fromkeys(map(str, range(10**5)), files[0])
    yield _index_text("100000 unknown tensors", json.dumps({"weight_map": many}))
    yield from _twice(ground, files)


def _twice(ground: Ground, files: list[str]) -> Iterator[Case]:
    """A tensor that stands in two shards, of which the index names one."""
    for first, second in itertools.pairwise(files):
        name = ground.random.choice([name for name, _ in parse(ground.home / MODEL / first)[0] if "model" in name])
        yield Case(f"{name} in two shards", _copied(name, first, second), INDEX_FILE, (name,))


def _copied(name: str, first: str, second: str) -> Callable[[Path], None]:
    def damage(home: Path) -> None:
        pairs, data = parse(home / MODEL / first)
        entry = dict(pairs)[name]
        start, stop = entry["data_offsets"]
        others, more = parse(home / MODEL / second)
        copied = {**entry, "data_offsets": [len(more), len(more) + stop - start]}
        (home / MODEL / second).write_bytes(assemble([*others, (name, copied)], more + data[start:stop]))
        reseal(home / MODEL)

    return damage


def _index_case(label: str, weight_map: dict[str, Any], tensor: str | None = None) -> Case:
    return _index_text(label, json.dumps({"metadata": {}, "weight_map": weight_map}), tensor)


def _index_text(label: str, text: str, tensor: str | None = None) -> Case:
    damage = put(Path(INDEX_FILE), lambda _: text.encode())
    return Case(f"the index has {label}", damage, INDEX_FILE, () if tensor is None else (tensor,))
