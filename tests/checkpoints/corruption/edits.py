"""Safetensors files whose header says something else than it should: names, dtypes, shapes, offsets, sizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.checkpoints.corruption.cases import Case, Ground
from tests.checkpoints.corruption.sources import MODEL, reseal

Entry = dict[str, Any]
Pairs = list[tuple[str, Any]]
Edit = Callable[[Pairs, bytes, int], tuple[Pairs, bytes]]
"""From the header's entries, the data and the number of one entry to others."""

_CODES = ("I8", "I16", "I32", "I64", "U8", "BOOL", "F64", "F8_E4M3", "F8_E5M2", "F4", "C64", "f32", "", "F32 ")
_NAMES = ("{}x", "x{}", "{}\nsecond line", "{}\x1b[31mred", "{}\ud800", "", "../{}", "__metadata__", "é{}", "{}" * 500)
_ENTRIES: dict[str, Any] = {
    "null": None,
    "a number": 3,
    "a list": [1, 2],
    "empty": {},
    "nested": {"dtype": {"dtype": "F32"}, "shape": [1], "data_offsets": [0, 4]},
}
_SHAPES: dict[str, Any] = {
    "negative": [-16, -16],
    "fractions": [16.0, 16.0],
    "booleans": [True, True],
    "text": "16,16",
    "null": None,
    "nine axes": [1] * 9,
    "one axis of 2^48": [2**48],
    "2^40 by 2^40": [2**40, 2**40],
    "2^40 by 0": [2**40, 0],
    "of a thousand digits": [10**1000],
    "nested": [[16], [16]],
    "none": [],
}
_OFFSETS: dict[str, Any] = {
    "beyond the file": [2**40, 2**40 + 64],
    "2^63": [2**63, 2**63 + 64],
    "negative": [-64, 0],
    "backwards": [64, 0],
    "three": [0, 64, 128],
    "fractions": [0.0, 64.0],
    "text": ["0", "64"],
    "null": None,
    "of a thousand digits": [10**1000, 10**1000 + 64],
}


def edited(ground: Ground) -> Iterator[Case]:
    """Entries with another dtype, name, shape or place; entries missing, added or doubled."""
    path = ground.random.choice(ground.source.weights(ground.home))
    pairs, _ = parse(path)
    for label, edit, named in _edits():
        number = ground.random.choice([i for i, (name, _) in enumerate(pairs) if name != "__metadata__"])
        tensors = _expected(pairs, number, named)
        yield Case(f"{path.name}: {label} of {pairs[number][0]}", _apply(path, edit, number), path.name, tensors)


def _expected(pairs: Pairs, number: int, named: bool) -> tuple[str, ...]:
    """The names of which an error may give one: the entry's own, or of a neighbour that its bytes now overlap."""
    near = [name for name, _ in pairs[max(0, number - 1) : number + 2] if name != "__metadata__"]
    return tuple(near) if named else ()


def _edits() -> Iterator[tuple[str, Edit, bool]]:
    for code in _CODES:
        yield f"dtype {code!r}", _replaced(dtype=code), True
    for label, entry in _ENTRIES.items():
        yield f"an entry that is {label}", _entry(entry), True
    for label, shape in _SHAPES.items():
        yield f"a shape that is {label}", _replaced(shape=shape), True
    for label, offsets in _OFFSETS.items():
        yield f"offsets that are {label}", _replaced(data_offsets=offsets), True
    for form in _NAMES:
        yield f"the name {form[:20]!r}", _renamed(form), form not in ("", "__metadata__")
    for label, edit in _STRUCTURE.items():
        yield label, edit, label not in _NAMELESS


def _replaced(**fields: Any) -> Edit:
    return lambda pairs, data, i: (_put(pairs, i, {**pairs[i][1], **fields}), data)


def _entry(entry: Any) -> Edit:
    return lambda pairs, data, i: (_put(pairs, i, entry), data)


def _renamed(form: str) -> Edit:
    def edit(pairs: Pairs, data: bytes, i: int) -> tuple[Pairs, bytes]:
        name = form.replace("{}", pairs[i][0])
        return [pair if n != i else (name, pair[1]) for n, pair in enumerate(pairs)], data

    return edit


def _put(pairs: Pairs, i: int, entry: Any) -> Pairs:
    return [pair if n != i else (pair[0], entry) for n, pair in enumerate(pairs)]


def _without(pairs: Pairs, data: bytes, i: int) -> tuple[Pairs, bytes]:
    """Its bytes go too, and everything behind moves up."""
    start, stop = pairs[i][1]["data_offsets"]
    return _moved(pairs[:i] + pairs[i + 1 :], start, start - stop), data[:start] + data[stop:]


def _moved(pairs: Pairs, start: int, by: int) -> Pairs:
    found: Pairs = []
    for name, entry in pairs:
        if "data_offsets" in entry and entry["data_offsets"][0] >= start:
            entry = {**entry, "data_offsets": [offset + by for offset in entry["data_offsets"]]}
        found.append((name, entry))
    return found


def _shifted(pairs: Pairs, data: bytes, place: int) -> tuple[Pairs, bytes]:
    """Bytes of no tensor in between."""
    return _moved(pairs, place, 8), data[:place] + bytes(8) + data[place:]


def _resized(by: int) -> Edit:
    """One row more or less along the first axis, all of it consistent."""

    def edit(pairs: Pairs, data: bytes, i: int) -> tuple[Pairs, bytes]:
        entry = pairs[i][1]
        (start, stop), shape = entry["data_offsets"], entry["shape"]
        row = (stop - start) // shape[0]
        values = (data[start:stop] + bytes(row))[: stop - start + by * row]
        changed = {**entry, "shape": [shape[0] + by, *shape[1:]], "data_offsets": [start, start + len(values)]}
        moved = _moved(pairs, stop, by * row)
        return _put(moved, i, changed), data[:start] + values + data[stop:]

    return edit


def _reshaped(form: Callable[[list[int]], list[int]]) -> Edit:
    return lambda pairs, data, i: (_put(pairs, i, {**pairs[i][1], "shape": form(pairs[i][1]["shape"])}), data)


def _added(name: str) -> Edit:
    def edit(pairs: Pairs, data: bytes, i: int) -> tuple[Pairs, bytes]:
        entry = {"dtype": "F32", "shape": [2], "data_offsets": [len(data), len(data) + 8]}
        return [*pairs, (name.format(pairs[i][0]), entry)], data + bytes(8)

    return edit


_STRUCTURE: dict[str, Edit] = {
    "absence": _without,
    "absence from the header": lambda pairs, data, i: (pairs[:i] + pairs[i + 1 :], data),
    "a row less": _resized(-1),
    "a row more": _resized(1),
    "an axis more": _reshaped(lambda shape: [1, *shape]),
    "one axis": _reshaped(lambda shape: [sum(shape), 1, 1]),
    "a gap before the bytes": lambda pairs, data, i: _shifted(pairs, data, pairs[i][1]["data_offsets"][0]),
    "a gap behind the bytes": lambda pairs, data, i: _shifted(pairs, data, pairs[i][1]["data_offsets"][1]),
    "the name twice": lambda pairs, data, i: ([*pairs, pairs[i]], data),
    "the name twice, elsewhere": lambda pairs, data, i: _added("{}")(pairs, data, i),
    "the bytes of a neighbour": lambda pairs, data, i: (
        _put(pairs, i, {**pairs[i][1], "data_offsets": pairs[i - 1 or 2][1]["data_offsets"]}),
        data,
    ),
}


_NAMELESS = ("absence from the header", "a gap behind the bytes")
"""What the last tensor of a file does not know about."""


def parse(path: Path) -> tuple[Pairs, bytes]:
    """A file's header entries in their order, and its data."""
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    return list(json.loads(content[8:begin]).items()), content[begin:]


def assemble(pairs: Pairs, data: bytes) -> bytes:
    """The inverse; the same name may occur more than once."""
    text = ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(entry)}" for name, entry in pairs) + "}").encode()
    return len(text).to_bytes(8, "little") + text + data


def _apply(path: Path, edit: Edit, number: int) -> Callable[[Path], None]:
    def damage(home: Path) -> None:
        target = home / MODEL / path.name
        target.write_bytes(assemble(*edit(*parse(target), number)))
        reseal(home / MODEL)

    return damage
