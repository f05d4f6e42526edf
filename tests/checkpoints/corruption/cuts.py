"""Files that end too early: at every boundary of their structure, inside of every part, at random places."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from griffin_core.checkpoints.manifest import MANIFEST_FILE
from griffin_core.checkpoints.tensor_file import read_header
from tests.checkpoints.corruption.cases import Case, Ground

_LOCAL = 30
"""Bytes of a zip's local header before the name."""


def cut_safetensors(ground: Ground) -> Iterator[Case]:
    """Within and after the length, within and after the header, at both ends of every tensor and within some."""
    for path in ground.source.weights(ground.home):
        infos = sorted(read_header(path).values(), key=lambda info: info.start)
        size, begin = path.stat().st_size, infos[0].start
        places = {0, 1, 7, 8, 9, 8 + (begin - 8) // 2, begin - 1, size - 1}
        ends = {end for info in infos for end in (info.start, info.stop)}
        places |= ends if not ground.source.hashed else set(ground.some(sorted(ends)))
        places |= {ground.random.randrange(size) for _ in range(ground.few)}
        for place in sorted(places - {size}):
            lost = tuple(info.name for info in infos if place >= begin and info.stop > place)
            yield _cut(ground, path, place, () if ground.source.hashed else lost)


def cut_zip(ground: Ground) -> Iterator[Case]:
    """Where every local header, record, entry of the directory and end record begins, and within some of them."""
    (path,) = ground.source.weights(ground.home)
    size = path.stat().st_size
    ends, inside = zip_boundaries(path)
    places = {0, 1, 2, size - 1, *(ground.some(ends) if ground.source.hashed else ends), *ground.some(inside)}
    places |= {ground.random.randrange(size) for _ in range(2 * ground.few)}
    for place in sorted(places):
        yield _cut(ground, path, place)


def cut_texts(ground: Ground) -> Iterator[Case]:
    """Every JSON file after some of its marks and at random places, before its last brace; and empty."""
    for path in ground.source.texts(ground.home):
        text = path.read_text(encoding="utf-8")
        last = text.rindex("}")
        marks = [place for place, mark in enumerate(text[:last]) if mark in '{}[]:,"']
        for place in sorted({0, 1, last, *ground.some(marks), *ground.some(range(last), 2)}):
            yield _cut(ground, path, len(text[:place].encode()))


def cut_anything(ground: Ground) -> Iterator[Case]:
    """Every file at its begin, before its end and at random places; the manifest ends in a line break."""
    for path in ground.source.all_files(ground.home):
        size = path.stat().st_size
        end = size - 2 if path.name == MANIFEST_FILE else size - 1
        for place in sorted({0, end, *ground.some(range(end), ground.few // 2)}):
            yield _cut(ground, path, place)


def lost_files(ground: Ground) -> Iterator[Case]:
    """Every file that is not there at all; what no manifest lists may be missing."""
    for path in ground.source.all_files(ground.home):
        needed = ground.source.hashed or not path.name.startswith("tokenizer")
        manifest = path.name == MANIFEST_FILE
        index = path.name.endswith("index.json")
        name = ground.source.entry if manifest or (index and not ground.source.hashed) else path.name
        yield Case(f"no {path.name}", _remove(path.relative_to(ground.home)), name, strict=needed and not manifest)


def zip_boundaries(path: Path) -> tuple[list[int], list[int]]:
    """Where the parts of a zip begin and end, and a place within each."""
    ends, inside = [], []
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries, directory = archive.infolist(), archive.start_dir
    for entry in entries:
        begin = record_start(data, entry)
        ends += [entry.header_offset, begin, begin + entry.file_size]
        inside += [entry.header_offset + _LOCAL, begin + entry.file_size // 2]
    place = directory
    while data[place : place + 4] == b"PK\x01\x02":
        ends.append(place)
        inside.append(place + 20)
        place += 46 + sum(int.from_bytes(data[place + at : place + at + 2], "little") for at in (28, 30, 32))
    while place < len(data):  # the end records: of the long form, its locator, of the short form
        ends.append(place)
        inside.append(place + 5)
        place = data.find(b"PK", place + 1)
        place = len(data) if place < 0 else place
    return sorted(set(ends)), sorted(set(inside))


def record_start(data: bytes, entry: zipfile.ZipInfo) -> int:
    """The first byte of a record, after its local header with name and padding."""
    header = entry.header_offset
    return header + _LOCAL + sum(int.from_bytes(data[header + at : header + at + 2], "little") for at in (26, 28))


def _remove(where: Path) -> Callable[[Path], None]:
    return lambda home: (home / where).unlink()


def _cut(ground: Ground, path: Path, length: int, tensors: tuple[str, ...] = ()) -> Case:
    where = path.relative_to(ground.home)

    def damage(home: Path) -> None:
        data = (home / where).read_bytes()
        (home / where).write_bytes(data[:length])

    return Case(f"{path.name} cut at {length}", damage, path.name, tensors)
