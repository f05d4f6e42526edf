"""Downloads happen only where a path asks for one, through the Hub's own library."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from griffin_core.checkpoints.convert import convert
from griffin_core.checkpoints.hub import PATTERNS, local
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.errors import CheckpointError, InputError

TINY = Path(__file__).with_name("tiny")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """A Hub that has one repository; gives what was asked of it."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def snapshot_download(repo: str, **options: Any) -> str:
        calls.append((repo, options))
        if repo != "someone/tiny":
            raise OSError("404\n  not found")
        return str(TINY / "transformers")

    module = ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


def test_a_repository_is_downloaded_and_read(asked: list[tuple[str, dict[str, Any]]], tmp_path: Path) -> None:
    read = open_checkpoint("hub:someone/tiny")
    assert (read.format, read.path) == ("huggingface", TINY / "transformers")
    convert("hub:someone/tiny@v1.0", tmp_path / "new")
    assert asked[0] == ("someone/tiny", {"revision": None, "allow_patterns": list(PATTERNS)})
    assert [options["revision"] for _, options in asked] == [None, "v1.0"]  # a conversion asks once
    assert not any("bin" in pattern or "pt" in pattern for pattern in PATTERNS)


def test_other_paths_never_ask(asked: list[tuple[str, dict[str, Any]]]) -> None:
    assert local("someone/tiny") == Path("someone/tiny")
    with pytest.raises(CheckpointError, match=r"someone/tiny.*no such file"):
        open_checkpoint("someone/tiny")
    assert asked == []


def test_what_cannot_be_had_is_one_line(asked: list[tuple[str, dict[str, Any]]]) -> None:
    with pytest.raises(CheckpointError, match=r"hub:someone/else cannot be downloaded \(404 not found\)"):
        open_checkpoint("hub:someone/else")
    for name in ("hub:", "hub:one", "hub:a/b/c", "hub:../x/y", "hub:a/b@"):
        with pytest.raises(InputError, match="names no repository; expected hub:OWNER/NAME"):
            open_checkpoint(name)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"needs huggingface-hub; pip install 'griffin-core\[hf\]'"):
        open_checkpoint("hub:someone/tiny")
