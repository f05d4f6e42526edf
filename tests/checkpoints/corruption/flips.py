"""Single flipped bits: anywhere under a manifest, elsewhere in the structure that something checks."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from griffin_core.checkpoints.hf_config import SECTION
from griffin_core.checkpoints.shards import INDEX_FILE
from tests.checkpoints.corruption.cases import Case, Ground
from tests.checkpoints.corruption.cuts import record_start
from tests.checkpoints.corruption.sources import CONFIG, GIVEN, MODEL


def flip_anything(ground: Ground) -> Iterator[Case]:
    """Any bit of any file, data and manifest too: under a manifest each is noticed, but in a header's free text."""
    for path in ground.source.all_files(ground.home):
        data = path.read_bytes()
        note = re.search(rb'"__metadata__":\{[^}]*\}', data)
        free = range(0) if note is None else range(8 * note.start(), 8 * note.end())
        yield from (_flip(ground, path, bit, bit not in free) for bit in ground.some(range(8 * len(data))))


def flip_length(ground: Ground) -> Iterator[Case]:
    """Every bit of the header's length."""
    for path in ground.source.weights(ground.home)[:1]:
        yield from (_flip(ground, path, bit) for bit in range(64))


def flip_header(ground: Ground) -> Iterator[Case]:
    """Bits of the JSON header; those of the free text under ``__metadata__`` do no harm."""
    for path in ground.source.weights(ground.home):
        length = int.from_bytes(path.read_bytes()[:8], "little")
        bits = ground.some(range(64, 8 * (8 + length)), 4 * ground.few)
        yield from (_flip(ground, path, bit, strict=False) for bit in bits)


def flip_index(ground: Ground) -> Iterator[Case]:
    """Bits of the index; those of its white space and of the total size do no harm."""
    path = ground.home / MODEL / INDEX_FILE
    text = path.read_text()
    bits = range(8 * text.index("weight_map"), 8 * text.rindex("}"))
    yield from (_flip(ground, path, bit, strict=False) for bit in ground.some(bits, 8 * ground.few))


def flip_config(ground: Ground) -> Iterator[Case]:
    """Bits of the marks and keys that say what the weights are: of our section, or of another program's config."""
    path = ground.home / GIVEN if (ground.home / GIVEN).exists() else ground.home / MODEL / "config.json"
    text = path.read_text()
    start = text.find(f'"{SECTION}":')
    keys = (SECTION, *CONFIG.to_dict()) if start > 0 else tuple(json.loads(text)) if path.name == GIVEN else _FOREIGN
    spans = [re.compile(f'"{key}":').search(text, max(0, start)) for key in keys]
    places = [place for span in spans if span is not None for place in range(*span.span())]
    bits = ground.some([8 * place + bit for place in places for bit in range(8)], 6 * ground.few)
    yield from (_flip(ground, path, bit) for bit in bits)


_FOREIGN = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "attention_window_size",
    "block_types",
)


def flip_description(ground: Ground) -> Iterator[Case]:
    """Bits of what says what the values are, inside of an archive: its checksum is compared before it is read."""
    yield from _flip_records(ground, "/data.pkl" if ground.source.files == "torch" else "config.json")


def flip_records(ground: Ground) -> Iterator[Case]:
    """Bits of the values inside of an archive."""
    yield from _flip_records(ground, "/data/" if ground.source.files == "torch" else "weights.h5")


def flip_directory(ground: Ground) -> Iterator[Case]:
    """Bits of a zip's directory and end; times, versions and attributes are read by nobody."""
    (path,) = ground.source.weights(ground.home)
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    bits = ground.some(range(8 * start, 8 * path.stat().st_size), 8 * ground.few)
    yield from (_flip(ground, path, bit, strict=False) for bit in bits)


def flip_local(ground: Ground) -> Iterator[Case]:
    """Bits of a zip's local headers, which repeat what the directory says; their padding is read by nobody."""
    (path,) = ground.source.weights(ground.home)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        spans = [(entry.header_offset, record_start(data, entry)) for entry in archive.infolist()]
    bits = [bit for start, _ in spans for bit in range(8 * start, 8 * (start + 30))]
    yield from (_flip(ground, path, bit, strict=False) for bit in ground.some(bits, 6 * ground.few))


def _flip_records(ground: Ground, part: str) -> Iterator[Case]:
    (path,) = ground.source.weights(ground.home)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        spans = [(record_start(data, e), e.file_size) for e in archive.infolist() if part in e.filename]
    bits: Sequence[int] = [bit for start, size in spans for bit in range(8 * start, 8 * (start + size))]
    yield from (_flip(ground, path, bit) for bit in ground.some(bits, 6 * ground.few))


def _flip(ground: Ground, path: Path, bit: int, strict: bool = True) -> Case:
    where = path.relative_to(ground.home)

    def damage(home: Path) -> None:
        data = bytearray((home / where).read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        (home / where).write_bytes(data)

    return Case(f"{path.name} bit {bit}", damage, path.name, strict=strict)
