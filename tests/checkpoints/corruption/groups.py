"""Every kind of corruption, and the sources that it fits."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

from tests.checkpoints.corruption import (
    archives,
    cuts,
    edits,
    flips,
    indices,
    keras_edits,
    manifests,
    paths,
    pickles,
    texts,
    torch_edits,
    values,
)
from tests.checkpoints.corruption.cases import Case, Ground
from tests.checkpoints.corruption.sources import SOURCES, Source

Group = tuple[Callable[[Ground], Iterable[Case]], Callable[[Source], bool]]
FEW = 6
"""Cases of a group on a source in a short run, and what is drawn where there are very many."""


def _all(source: Source) -> bool:
    return True


def _safe(source: Source) -> bool:
    return source.files == "safetensors"


def _torch(source: Source) -> bool:
    return source.files == "torch"


def _hashed(source: Source) -> bool:
    return source.hashed


def _open(source: Source) -> bool:
    return not source.hashed


def _open_safe(source: Source) -> bool:
    return _open(source) and _safe(source)


def _keras(source: Source) -> bool:
    return source.files == "keras"


def _open_zip(source: Source) -> bool:
    return _open(source) and _zip(source)


def _zip(source: Source) -> bool:
    return _torch(source) or _keras(source)


def _texts(source: Source) -> bool:
    """There are JSON files; a Keras file alone has its config inside."""
    return source.name != "keras-bare"


def _sharded(source: Source) -> bool:
    return source.name.endswith("sharded")


GROUPS: dict[str, Group] = {
    "cut safetensors": (cuts.cut_safetensors, _safe),
    "cut zip": (cuts.cut_zip, _zip),
    "cut texts": (cuts.cut_texts, _texts),
    "cut anything": (cuts.cut_anything, _hashed),
    "lost files": (cuts.lost_files, _all),
    "flip anything": (flips.flip_anything, _hashed),
    "flip length": (flips.flip_length, _open_safe),
    "flip header": (flips.flip_header, _open_safe),
    "flip index": (flips.flip_index, lambda source: _open(source) and _sharded(source)),
    "flip config": (flips.flip_config, lambda source: _open(source) and _texts(source)),
    "flip description": (flips.flip_description, _open_zip),
    "flip records": (flips.flip_records, _open_zip),
    "flip directory": (flips.flip_directory, _open_zip),
    "flip local": (flips.flip_local, _open_zip),
    "edited header": (edits.edited, _safe),
    "edited tensors": (torch_edits.edited, _torch),
    "old format": (torch_edits.old_format, _torch),
    "hostile": (pickles.hostile, _torch),
    "crafted": (pickles.crafted, _torch),
    "archives": (archives.rearranged, _torch),
    "edited datasets": (keras_edits.edited, _keras),
    "other members": (keras_edits.rearranged, _keras),
    "the config inside": (keras_edits.configured, _keras),
    "not finite": (values.not_finite, _all),
    "unreadable": (texts.unreadable, _texts),
    "wrong fields": (texts.wrong_fields, _texts),
    "absurd counts": (texts.absurd_counts, _texts),
    "wrong index": (indices.wrong_index, _sharded),
    "wrong manifest": (manifests.wrong_manifest, _hashed),
    "manifest names": (manifests.manifest_names, _hashed),
    "manifest fields": (manifests.manifest_fields, _hashed),
    "not files": (paths.not_files, _all),
}
PAIRS = [(name, group) for group, (_, fits) in GROUPS.items() for name, source in SOURCES.items() if fits(source)]
"""Every source with every group that fits it."""
WHOLE = {
    "foreign": ("cut safetensors", "edited header"),
    "torch-bare": ("cut zip", "hostile", "crafted"),
    "keras-bare": ("edited datasets", "other members"),
}
"""Groups of a source of which a short run has every case: once of each file format."""


def cases(source: str, group: str, home: Path, times: int = 0) -> list[Case]:
    """The cases of a group on a source.

    Args:
        home: the undamaged source.
        times: 0 draws a few; else all, and where there are very many, so many times a few.
    """
    random = Random(zlib.crc32(f"{times} {source} {group}".encode()))
    make, _ = GROUPS[group]
    ground = Ground(SOURCES[source], home, random, FEW * max(1, times))
    found = list(make(ground))
    return found if times or group in WHOLE.get(source, ()) else ground.some(found)
