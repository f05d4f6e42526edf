"""What the store of the official Flax checkpoints does not write, does not find, and does not say."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("orbax.checkpoint")

from griffin_core.errors import CheckpointError
from griffin_core_jax import official_directory
from griffin_core_jax.official_directory import open_tensors, write_tensors

ONES = np.ones(4, np.float32)
GOOD = {"final_norm/scale": ONES, "embedder/input_embedding": np.arange(8, dtype=np.float16).reshape(4, 2)}


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({}, "would hold no tensor"),
        ({"": ONES}, "printable text"),
        ({"a//b": ONES}, "printable text"),
        ({"a/b\n": ONES}, "printable text"),
        ({"..": ONES}, "printable text"),
        ({"/".join("a" * 33): ONES}, "at most 32 keys"),
        ({"a.b/c": ONES, "a/b.c": ONES}, "names two tensors 'a.b.c'"),
        ({"a": ONES, "a/b": ONES}, "names a tensor and a level of the tree 'a'"),
        ({"params/a": ONES, "params/b": ONES}, "below 'params'"),
        ({"a": ONES[:0]}, "tensor 'a' has the shape [0]"),
        ({"a": ONES.astype(np.complex64)}, "the dtype complex64"),
        ({"a": np.array(["x"])}, "the dtype str"),
    ],
)
def test_what_orbax_cannot_hold_is_not_written(arrays: dict[str, np.ndarray], expected: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        write_tensors(tmp_path, arrays)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["_METADATA", "checkpoint", "manifest.ocdbt", "d"])
def test_a_checkpoint_that_is_there_is_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(CheckpointError, match=f"{name} is there already"):
        write_tensors(tmp_path, GOOD)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_the_directory_to_write_exists(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it is no directory; make it first"):
        write_tensors(tmp_path / "none", GOOD)
    assert not (tmp_path / "none").exists()


def test_inputs_may_be_read_only_strided_and_of_another_byte_order(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    values.setflags(write=False)
    write_tensors(tmp_path, {"a": values.T, "b": values[::2, ::-1], "c": values.astype(">f4")})
    opened = open_tensors(tmp_path)
    for name, expected in {"a": values.T, "b": values[::2, ::-1], "c": values}.items():
        np.testing.assert_array_equal(opened.get(name), expected)


def test_nothing_is_printed_or_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "absl"):
        write_tensors(tmp_path, GOOD)
        open_tensors(tmp_path).get("final_norm/scale")
        (tmp_path / "manifest.ocdbt").write_bytes(b"\0" * 99)
        with pytest.raises(CheckpointError):
            open_tensors(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_an_unknown_tensor_is_named_with_the_nearest(tmp_path: Path) -> None:
    write_tensors(tmp_path, GOOD)
    with pytest.raises(CheckpointError, match="no tensor 'final_norm/scales'; did you mean 'final_norm/scale'"):
        open_tensors(tmp_path).get("final_norm/scales")


def test_a_scratch_directory_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official_directory, "IN_MEMORY", 0)
    write_tensors(tmp_path, GOOD)
    with pytest.raises(CheckpointError, match=r"tensor 'final_norm/scale' in .*none.*: no such file"):
        open_tensors(tmp_path, tmp_path / "none").get("final_norm/scale")


def test_the_snapshot_of_a_hub_is_read_through_its_links(tmp_path: Path) -> None:
    """There every file is a link into the repository's blobs; a link to anywhere else is refused."""
    snapshot, blobs = tmp_path / "repository" / "snapshots" / "1a2b" / "2b", tmp_path / "repository" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    write_tensors(snapshot, GOOD)
    for number, path in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        shutil.move(path, blobs / str(number))
        path.symlink_to(blobs / str(number))
    opened = open_tensors(snapshot)
    for name, expected in GOOD.items():
        np.testing.assert_array_equal(opened.get(name), expected)
    shutil.copytree(snapshot, tmp_path / "copied", symlinks=True)
    with pytest.raises(CheckpointError, match="is a link that leaves the checkpoint"):
        open_tensors(tmp_path / "copied")
