"""Our tensor files equal the safetensors library's reading of them, and damaged headers are refused by name."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from griffin_core.checkpoints.tensor_file import TensorOut, map_tensors, read_header, tensor_digest, write_tensors
from griffin_core.errors import CheckpointError
from griffin_core.shapes import DTYPES

NAMES = ("float32", "float16", "bfloat16")


def array(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32).astype(DTYPES[dtype])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.tuples(hnp.array_shapes(max_dims=3, max_side=5), st.sampled_from(NAMES)), min_size=1, max_size=5)
)
def test_the_library_reads_what_we_write_and_we_read_what_it_writes(tmp_path: Path, shapes: list[Any]) -> None:
    tensors = {f"layer.{i}.é": array(shape, dtype, i) for i, (shape, dtype) in enumerate(shapes)}
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    write_tensors(ours, [TensorOut(name, value, value.dtype.name) for name, value in tensors.items()])
    save_file(tensors, theirs)
    by_library, by_us = load_file(ours), map_tensors(theirs, read_header(theirs))
    assert set(by_library) == set(by_us) == set(tensors)
    for name, value in tensors.items():
        for read in (by_library[name], by_us[name]):
            assert read.dtype == value.dtype
            assert read.shape == value.shape
            assert read.tobytes() == value.tobytes()
    with safe_open(ours, "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_written_facts_are_the_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = [TensorOut("a", array((3, 5), "float32"), "float32"), TensorOut("b", array((7,), "float16"), "float16")]
    seen: list[int] = []
    written = write_tensors(path, tensors, seen.append)
    data = path.read_bytes()
    assert written.size == len(data)
    assert written.sha256 == hashlib.sha256(data).hexdigest()
    assert written.tensors == {t.name: tensor_digest(t.array) for t in tensors}
    assert written.tensors["a"] == hashlib.sha256(tensors[0].array.tobytes()).hexdigest()
    assert sum(seen) == 3 * 5 * 4 + 7 * 2


def test_tensors_longer_than_a_block_and_not_contiguous_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("griffin_core.checkpoints.blocks.BLOCK", 8)
    whole = array((6, 10), "float32")
    path = tmp_path / "x.safetensors"
    views = {"whole": whole, "turned": whole.T, "strided": whole[::2, ::3]}
    write_tensors(path, [TensorOut(name, view, "float32") for name, view in views.items()])
    for name, read in map_tensors(path, read_header(path)).items():
        np.testing.assert_array_equal(read, views[name])


def test_conversion_rounds_to_nearest(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    values = array((4, 4), "float32")
    write_tensors(path, [TensorOut("a", values, "bfloat16")])
    read = map_tensors(path, read_header(path))["a"]
    assert read.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(read, values.astype(ml_dtypes.bfloat16))


def test_views_are_read_only(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, [TensorOut("a", array((4,), "float32"), "float32")])
    view = map_tensors(path, read_header(path))["a"]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1.0


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (np.array([1.0, np.nan], np.float32), "float32", "weight w has values that are NaN or infinite; not written"),
        (np.array([np.inf], np.float32), "bfloat16", "NaN or infinite in bfloat16"),
        (np.array([1e6], np.float32), "float16", "NaN or infinite in float16"),
    ],
)
def test_values_that_are_not_finite_are_not_written(tmp_path: Path, value: np.ndarray, dtype: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        write_tensors(tmp_path / "x.safetensors", [TensorOut("w", value, dtype)])


def entry(start: int = 0, stop: int = 8, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def file_with(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a safetensors file or is cut short: 0 bytes"),
        (b"\x05\x00\x00", "cut short: 3 bytes"),
        (struct.pack("<Q", 2**63), "header length 9223372036854775808"),
        (struct.pack("<Q", 10) + b"{}", "cut short: 10 bytes, header length 10"),
        (file_with(b"not json at all"), "damaged header"),
        (file_with(b"\xff\xfe\xfd"), "damaged header"),
        (file_with(b"[" * 100_000), "damaged header"),
        (file_with([1, 2]), "damaged header .a JSON list."),
        (file_with(b'{"w": 1, "w": 2}'), "damaged header .'w' occurs twice."),
        (file_with({"w": 3}), "tensor 'w' has a damaged header entry"),
        (file_with({"w": entry(shape=[2, -1])}), "tensor 'w' has a damaged header entry"),
        (file_with({"w": entry(shape=[True])}), "tensor 'w' has a damaged header entry"),
        (file_with({"w": entry(shape=[1] * 9)}), "tensor 'w' has a damaged header entry"),
        (file_with({"w": entry(shape=[2**48])}), "tensor 'w' has a damaged header entry"),
        (file_with({"w": entry(shape=[2**40, 2**40])}), "tensor 'w' has 8 bytes at 0; expected"),
        (file_with({"w": entry(dtype="F64", shape=[1])}), "tensor 'w' has dtype F64; expected one of F32, BF16, F16"),
        (file_with({"w": entry(dtype=["F32"])}), "tensor 'w' has a damaged header entry"),
        (file_with({"w": entry(shape=[3])}), "tensor 'w' has 8 bytes at 0; expected 12"),
        (file_with({"w": entry()}, bytes(4)), "tensor 'w' has 8 bytes at 0; expected 8 in the file"),
        (file_with({"w": entry()}, bytes(12)), "but its header describes"),
        (file_with({"w": entry(4, 12)}, bytes(12)), "tensor 'w' starts at byte"),
        (file_with({"a": entry(), "b": entry()}), "tensor 'b' starts at byte"),
        (file_with({"w": entry(8, 0)}), "tensor 'w' has -8 bytes"),
    ],
)
def test_damaged_headers_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, [TensorOut("a", array((2, 2), "float32"), "float32")])
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"x\.safetensors"):
            read_header(path)
