"""Directories that are something else, unfinished, or not ours to read, are told what they are."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from griffin_core.checkpoints import manifest as manifests
from griffin_core.checkpoints import native
from griffin_core.checkpoints.manifest import FileRecord, Manifest, read_manifest
from griffin_core.errors import CheckpointError

Make = Callable[..., Path]
Refuse = Callable[..., str]
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "is no checkpoint; expected a directory with config.json"),
        ({"notes.txt": "x"}, "is no checkpoint"),
        ({"config.json": "{}"}, "a Hugging Face directory .* if it is a native checkpoint, it is unfinished"),
        (
            {"config.json": "{}", "model.safetensors": ""},
            "is a Hugging Face directory",
        ),
        ({"_METADATA": "{}"}, "an orbax directory"),
        ({"2b-it.pt": "PK\x03\x04"}, "a torch file"),
        ({"manifest.json": ""}, r"manifest\.json is not a manifest of this library, or is damaged"),
        ({"manifest.json": "[]"}, "is not a manifest"),
        ({"manifest.json": "7"}, "is not a manifest"),
        ({"manifest.json": '{"name": "app", "version": "1"}'}, "is not a manifest"),
        ({"manifest.json": "[" * 100_000}, "is not a manifest"),
    ],
)
def test_foreign_directories_are_told_what_they_are(
    tmp_path: Path, files: dict[str, str], words: str, refuse: Refuse
) -> None:
    write(tmp_path, files)
    refuse(tmp_path, words)


def test_foreign_files_and_absent_paths(tmp_path: Path, refuse: Refuse) -> None:
    refuse(tmp_path / "none", "cannot read .*: no such file or directory")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"xx")
    refuse(file, "is no checkpoint")
    torch_file = tmp_path / "2b.pt"
    torch_file.write_bytes(b"PK\x03\x04")
    refuse(torch_file, "a torch file, as the official PyTorch code writes; expected a native checkpoint")


def test_another_version_of_the_format_is_named(make: Make, monkeypatch: pytest.MonkeyPatch, refuse: Refuse) -> None:
    directory = make()
    with monkeypatch.context() as patch:
        patch.setattr(manifests, "FORMAT_VERSION", 2)
        text = json.loads((directory / "manifest.json").read_text())
        body = {n: v for n, v in text.items() if n not in ("format", "format_version", "manifest_sha256")}
        body["files"] = {n: FileRecord(**r) for n, r in body["files"].items()}
        (directory / "manifest.json").write_text(Manifest(**body).to_json())
        assert read_manifest(directory).metadata == {"step": 7}
    refuse(directory, "version 2; expected 'griffin-core native checkpoint' version 1")


def test_something_that_is_no_file_is_not_opened(make: Make, refuse: Refuse) -> None:
    directory = make()
    (directory / "config.json").unlink()
    os.mkfifo(directory / "config.json")
    refuse(directory, "config.json is not a regular file")


@pytest.fixture
def public(make: Make) -> Iterator[Path]:
    """A checkpoint in a directory that other users may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        shutil.copytree(make(shard=20_000), Path(name) / "model")
        yield Path(name) / "model"


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Act as a user whom file permissions bind (root gives its rights away for a while)."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_unreadable_files_and_directories_are_named(public: Path, refuse: Refuse) -> None:
    for path in [public, *sorted(public.iterdir())]:
        mode = path.stat().st_mode
        path.chmod(0)
        with without_rights():
            message = refuse(public, "permission denied")
        assert path.name in message
        path.chmod(mode)
    with without_rights():
        assert native.read(public).manifest.metadata == {"step": 7}


def test_an_unwritable_place_is_named(public: Path) -> None:
    read = native.read(public)
    public.parent.chmod(0o555)
    with without_rights(), pytest.raises(CheckpointError, match=r"cannot write .*: permission denied"):
        native.save(public.parent / "new", read.config, read.params)
    public.parent.chmod(0o755)
    assert [path.name for path in public.parent.iterdir()] == ["model"]
