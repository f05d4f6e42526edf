"""The store of Keras files: every bit comes back, wherever Keras or another writer put it; the rest is refused."""

from __future__ import annotations

import io
import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from griffin_core.checkpoints.keras_archive import NewArchive, weights_span
from griffin_core.checkpoints.keras_file import create_tensors, open_tensors
from griffin_core.errors import CheckpointError
from griffin_core.shapes import DTYPES, Array

h5py = pytest.importorskip("h5py")

TEXTS = {"metadata.json": b"{}", "config.json": b'{"a": 1}'}


def bits(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Any bits at all, NaN among them."""
    size = DTYPES[dtype].itemsize
    raw = np.random.default_rng(seed).integers(0, 256, (*shape[:-1], shape[-1] * size), np.uint8)
    return raw.view(DTYPES[dtype])


def written(directory: Path, arrays: dict[str, Array]) -> Path:
    with create_tensors(directory, {n: (a.shape, a.dtype.name) for n, a in arrays.items()}, TEXTS) as room:
        for name, array in arrays.items():
            room[name][...] = array
    return directory / "model.keras"


def assert_same(path: Path, arrays: dict[str, Array]) -> None:
    source = open_tensors(path)
    source.check()
    assert set(source.stored) == set(arrays)
    for name, array in arrays.items():
        found = source.get(name)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()
        assert not found.flags.writeable
        assert (source.stored[name].dtype, source.stored[name].file) == (array.dtype.name, path.name)


def some(dtype: str = "float32") -> dict[str, Array]:
    shapes = [(7,), (3, 5), (2, 3, 4), (1, 1, 2, 2), (40, 33)]
    return {f"layer_{n}/x/vars/{n}": bits(dtype, shape, n) for n, shape in enumerate(shapes)}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_every_bit_comes_back(tmp_path: Path, dtype: str) -> None:
    arrays = some(dtype)
    assert_same(written(tmp_path, arrays), arrays)


def test_dtypes_may_be_mixed_and_bytes_depend_on_values_alone(tmp_path: Path) -> None:
    arrays = {**some("bfloat16"), "embedding/vars/0": bits("float32", (9, 2)), "head/vars/0": bits("float16", (3, 3))}
    path = written(tmp_path, arrays)
    whole = path.read_bytes()
    assert_same(path, arrays)
    assert written(tmp_path, arrays).read_bytes() == whole


def test_h5py_and_zipfile_read_what_is_written(tmp_path: Path) -> None:
    """As Keras does: bfloat16 is two opaque bytes, and an attribute says so."""
    arrays = {**some(), "head/vars/0": bits("bfloat16", (4, 4))}
    with zipfile.ZipFile(written(tmp_path, arrays)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        assert json.loads(archive.read("config.json")) == {"a": 1}
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as root:
            for name, array in arrays.items():
                assert np.asarray(root[name]).tobytes() == array.tobytes()
            assert root["head/vars/0"].attrs["dtype"] == "bfloat16"
            assert (root["head/vars"].attrs["name"], root["vars"].attrs["name"]) == ("head", "griffin")


def test_values_begin_where_a_cache_line_does(tmp_path: Path) -> None:
    path = written(tmp_path, some("bfloat16"))
    source = open_tensors(path)
    assert weights_span(path).start % 64 == 0
    assert all(source.get(name).ctypes.data % 64 == 0 for name in source.stored)


@pytest.mark.parametrize("size", [10**6, 2**32 - 2, 2**32 - 1, 2**32 + 10**6])
def test_archives_may_be_larger_than_32_bits(size: int) -> None:
    """The zip's own fields, without its weights."""
    archive = NewArchive(TEXTS, size)
    offset, header = archive.local(7)
    assert archive.total == len(archive.head) + size + len(archive.end(7))
    assert archive.head[offset : offset + 14] == header[:14]

    class Sparse(io.BytesIO):
        """What stands before and behind a hole."""

        def __init__(self) -> None:
            super().__init__(archive.head[:offset] + header + archive.end(7))

        def seek(self, place: int, whence: int = 0) -> int:
            hole = len(archive.head)
            at = super().seek(0, 2) + size + place if whence == 2 else place
            super().seek(at if at <= hole else at - size)
            return at

        def tell(self) -> int:
            place = super().tell()
            return place if place < len(archive.head) else place + size

    with zipfile.ZipFile(Sparse()) as found:
        info = found.getinfo("model.weights.h5")
        assert (info.file_size, info.compress_size, info.CRC, info.header_offset) == (size, size, 7, offset)


def hand_made(path: Path, fill: Callable[[Any], None], **options: Any) -> Path:
    with h5py.File(path, "w", **options) as root:
        fill(root)
    return path


def test_files_of_other_writers_are_read(tmp_path: Path) -> None:
    def fill(root: Any) -> None:
        root["head/vars/0"] = np.arange(6.0).reshape(2, 3)
        root.create_dataset("embedding/vars/0", data=np.ones(3, ml_dtypes.bfloat16)).attrs["dtype"] = "bfloat16"
        root.create_dataset("optimizer/vars/0", data=np.ones((8, 8)), compression="gzip")
        root["optimizer/vars/1"] = h5py.ExternalLink("/etc/passwd", "/a")
        root["seed_generator/vars/0"] = np.ones(2, np.uint32)

    for number, options in enumerate([{}, {"libver": "latest"}, {"userblock_size": 512}]):
        source = open_tensors(hand_made(tmp_path / f"{number}.weights.h5", fill, **options))
        assert set(source.stored) == {"head/vars/0", "embedding/vars/0", "seed_generator/vars/0"}
        assert source.get("head/vars/0").tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        assert source.get("embedding/vars/0").dtype == ml_dtypes.bfloat16
        source.check()


def _put(name: str, **arguments: Any) -> Callable[[Any], None]:
    arguments = arguments if "data" in arguments else {"dtype": "f4", **arguments}
    return lambda root: root.create_dataset(name, **arguments) and None


REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "chunks": (_put("a/vars/0", data=np.ones((4, 4)), chunks=(2, 2)), "'a/vars/0' is in chunks, compressed, or in"),
    "a packed array": (_put("a/vars/0", data=np.ones((4, 4)), compression="gzip"), "is in chunks, compressed"),
    "an absurd shape": (_put("a/vars/0", shape=(2**40, 2**40), chunks=(8, 8)), "is in chunks"),
    "no room": (_put("a/vars/0", shape=(2**40,)), "does not fit in the file"),
    "another file": (_put("a/vars/0", shape=(2,), external=[("/etc/passwd", 0, 8)]), "in another file"),
    "int8": (_put("a/vars/0", data=np.ones(3, np.int8)), "is int8, quantised; save it before quantize()"),
    "LoRA": (_put("a/vars/lora_a", data=np.ones(3)), "is a factor of LoRA; merge it into its weight, then save"),
    "a soft link": (lambda root: root.__setitem__("a", h5py.SoftLink("/b")), "'a' is a SoftLink, which is never"),
    "an external link": (lambda root: root.__setitem__("a", h5py.ExternalLink("x.h5", "/b")), "'a' is a ExternalLink"),
    "a loop": (lambda root: root.__setitem__("a/b", root), "'a/b' stands in two places"),
    "a type": (lambda root: root.__setitem__("a", np.dtype("f4")), "'a' is a Datatype; expected a group or"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_all_but_plain_arrays_are_refused(tmp_path: Path, what: str) -> None:
    fill, words = REFUSED[what]
    path = hand_made(tmp_path / "m.weights.h5", fill)
    with pytest.raises(CheckpointError) as caught:
        open_tensors(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*model\.keras"):
            written(tmp_path, {"a/vars/0": np.ones(100_000, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
