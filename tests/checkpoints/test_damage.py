"""Every kind of damage gives one clear line that names the file, and never a traceback or a wrong weight."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from griffin_core.checkpoints import manifest as manifests
from griffin_core.checkpoints import native
from griffin_core.checkpoints.manifest import FileRecord, Manifest, read_manifest
from griffin_core.checkpoints.tensor_file import TensorOut, write_tensors
from griffin_core.errors import CheckpointError, CheckpointMismatch

Make = Callable[..., Path]
Refuse = Callable[..., str]
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def reseal(directory: Path, **changes: Any) -> None:
    """Make the manifest fit the files again, as an attacker or a careless tool could."""
    old = read_manifest(directory)
    files = {p.name: FileRecord(p.stat().st_size, manifests.file_digest(p)) for p in directory.iterdir()}
    del files["manifest.json"]
    fields = {"files": files, **{n: getattr(old, n) for n in ("weights_sha256", "config_sha256", "library_version")}}
    made = Manifest(**{**fields, "metadata": {}, **changes})
    (directory / "manifest.json").write_text(made.to_json())


@SHARED
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_noticed(make: Make, tmp_path: Path, data: st.DataObject, refuse: Refuse) -> None:
    directory = tmp_path / "model"
    if not directory.exists():
        make(shard=20_000)
    path = data.draw(st.sampled_from(sorted(directory.iterdir())))
    whole = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        assert path.name in refuse(directory)
    finally:
        path.write_bytes(whole)


@SHARED
@given(data=st.data())
def test_a_truncation_is_noticed_even_without_hashing(
    make: Make, tmp_path: Path, data: st.DataObject, refuse: Refuse
) -> None:
    directory = tmp_path / "model"
    if not directory.exists():
        make(shard=20_000)
    path = data.draw(st.sampled_from(sorted(directory.iterdir())))
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    try:
        assert path.name in refuse(directory, verify=data.draw(st.booleans()))
    finally:
        path.write_bytes(whole)


def test_every_missing_file_is_named(make: Make, refuse: Refuse) -> None:
    directory = make(shard=20_000)
    for path in sorted(directory.iterdir()):
        whole = path.read_bytes()
        path.unlink()
        message = refuse(directory, verify=False)
        assert path.name in message
        path.write_bytes(whole)
    assert native.read(directory).manifest.metadata == {"step": 7}


def test_skipping_the_hashes_still_reads(make: Make, refuse: Refuse) -> None:
    directory = make()
    path = directory / "model.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    refuse(directory, "does not match its SHA-256")
    native.read(directory, verify=False)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../b", "..", ".", "", "a\\b", "manifest.json", "a\0b"])
def test_names_that_leave_the_directory_are_refused(make: Make, name: str, refuse: Refuse) -> None:
    directory = make()
    reseal(directory, files={**read_manifest(directory).files, name: FileRecord(1, "0")})
    refuse(directory, "which is no plain file name; nothing was read")


def test_an_index_cannot_name_files_outside_the_manifest(make: Make, refuse: Refuse) -> None:
    directory = make(shard=20_000)
    index = directory / "model.safetensors.index.json"
    body = json.loads(index.read_text())
    body["weight_map"]["model.final_norm.weight"] = "../secret.safetensors"
    index.write_text(json.dumps(body))
    reseal(directory)
    refuse(directory, "names the shard '../secret.safetensors', which is not among its \\*\\.safetensors files")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_an_index_that_is_none(make: Make, text: str, refuse: Refuse) -> None:
    directory = make(shard=20_000)
    (directory / "model.safetensors.index.json").write_text(text)
    reseal(directory)
    refuse(directory, "is not an index of shards")


def test_index_and_shards_must_agree(make: Make, refuse: Refuse) -> None:
    directory = make(shard=20_000)
    index = directory / "model.safetensors.index.json"
    body = json.loads(index.read_text())
    files = sorted(set(body["weight_map"].values()))
    moved = {**body["weight_map"], "model.final_norm.weight": files[0]}
    for weight_map, words in (
        (moved, f"has tensor 'model.final_norm.weight' in {files[0]}, but it is in {files[-1]}"),
        ({**body["weight_map"], "x": files[0]}, f"index.json: tensor 'x' is not in {files[0]}"),
        ({n: f for n, f in body["weight_map"].items() if n != "model.final_norm.weight"}, "index.json lacks tensor"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        reseal(directory)
        refuse(directory, words)


def test_a_resealed_directory_with_other_weights_is_refused(make: Make) -> None:
    directory = make()
    read = native.read(directory)
    name = "model.layers.1.temporal_block.q_proj.weight"
    broken = read.params[name].copy()
    broken[3, 2] = np.nan
    cases: list[tuple[dict[str, Any], str]] = [
        ({**read.params, name: broken}, f"weight {name} has 1 values that are NaN or infinite"),
        ({n: v for n, v in read.params.items() if n != name}, f"missing: {name}"),
        ({**read.params, "extra": read.params[name]}, "unused: extra"),
        ({**read.params, name: read.params[name].T[:8]}, f"wrong shape: {name}"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("griffin_core.checkpoints.tensor_file.count_not_finite", lambda value: 0)
        for params, words in cases:
            tensors = [TensorOut(n, v.copy(), v.dtype.name) for n, v in params.items()]
            write_tensors(directory / "model.safetensors", tensors)
            reseal(directory)
            with pytest.raises(CheckpointMismatch if "NaN" not in words else CheckpointError, match=words):
                native.read(directory)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "has no 'griffin' section"),
        ("[]", "is a JSON list; expected an object"),
        ("{", "config.json is not JSON"),
        ('{"griffin": {"width": 16}}', "config.json: config lacks lru_width"),
        ('{"griffin": {"widht": 16}}', "unknown config key 'widht'; did you mean 'width'"),
    ],
)
def test_a_resealed_config_is_checked(make: Make, text: str, words: str, refuse: Refuse) -> None:
    directory = make()
    (directory / "config.json").write_text(text)
    reseal(directory)
    refuse(directory, words)


def test_manifests_that_leave_something_out(make: Make, refuse: Refuse) -> None:
    directory = make()
    files = read_manifest(directory).files
    for name, words in (("config.json", "does not list config.json"), ("model.safetensors", "it holds no weights")):
        reseal(directory, files={n: r for n, r in files.items() if n != name})
        refuse(directory, words)
