"""The manifest says something else than it should: other content, files that are none, values of another kind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from griffin_core.checkpoints.manifest import MANIFEST_FILE, FileRecord, read_manifest
from tests.checkpoints.corruption.cases import Case, Ground
from tests.checkpoints.corruption.sources import MODEL
from tests.checkpoints.corruption.texts import UNREADABLE, put

_NAMES = ("..", "../outside", "/etc/passwd", "a\\b", "", ".", "./x", "a//b", "nul\0", "\ud800", "x" * 5000, "\n", "x")
_FIELDS: dict[str, tuple[object, ...]] = {
    "files": (None, 3, "x", ["x"], {"x": 1}, {"x": {}}, {"x": {"size": "1", "sha256": "x"}}, {"x": {"bytes": 1}}),
    "weights_sha256": (None, 3, "x", ["x"], {"x": 1}),
    "config_sha256": (None, 3, ["x"]),
    "library_version": (None, 3, ["x"]),
    "metadata": (None, 3, "x", ["x"], [["a", 1]]),
    "format": (None, 3, ["x"], "another"),
    "format_version": (None, 0, 2, "1", [1]),
    "unknown": (1,),
}
"""Values of another kind by field."""


def wrong_manifest(ground: Ground) -> Iterator[Case]:
    """The manifest itself with another content."""
    path = ground.home / MODEL / "manifest.json"
    for label, content in ground.some(list(UNREADABLE.items())):
        yield Case(f"{path.name} is {label}", put(path, lambda _, c=content: c, False), path.name)


def manifest_names(ground: Ground) -> Iterator[Case]:
    """The manifest lists a file that is none of the directory."""
    for name in _NAMES:
        absent = name in ("x", "\n") or len(name) > 255
        yield Case(f"the manifest lists {name!r:.30}", _listing(name), MODEL if absent else MANIFEST_FILE)


def _listing(name: str) -> Callable[[Path], None]:
    def damage(home: Path) -> None:
        old = read_manifest(home / MODEL)
        made = replace(old, files={**old.files, name: FileRecord(1, "0")})
        (home / MODEL / MANIFEST_FILE).write_text(made.to_json())

    return damage


def manifest_fields(ground: Ground) -> Iterator[Case]:
    """Fields of the manifest with values of another kind, under a hash that fits."""
    for field, values in _FIELDS.items():
        for value in values:
            yield Case(f"{field} of the manifest is {value!r}", _manifest_field(field, value), MANIFEST_FILE)
    for depth in (100, 400, 700):
        nested: object = 1
        for _ in range(depth):
            nested = {"a": nested}
        damage = _manifest_field("metadata", nested)
        yield Case(f"metadata {depth} deep", damage, MANIFEST_FILE, strict=False)


def _manifest_field(field: str, value: object) -> Callable[[Path], None]:
    def damage(home: Path) -> None:
        path = home / MODEL / MANIFEST_FILE
        body = json.loads(path.read_text())
        del body["manifest_sha256"]
        body[field] = value
        own = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps({**body, "manifest_sha256": own}))

    return damage
