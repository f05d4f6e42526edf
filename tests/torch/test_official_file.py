"""The store of official PyTorch files: every bit there and back, memory-mapped, and nothing but tensors."""

from __future__ import annotations

import collections
import resource
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from griffin_core.checkpoints.sources import StoredTensor
from griffin_core.errors import CheckpointError
from griffin_core.shapes import DTYPES
from griffin_core_torch.official_file import FILE, open_tensors, write_tensors

MIB = 1 << 20
LARGE = 96 * MIB
"""Bytes of a file that would be seen in memory."""


def bits(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Any bits: subnormal numbers, infinities, and NaN with payloads are among them."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*shape[:-1], shape[-1] * DTYPES[dtype].itemsize), np.uint8).view(DTYPES[dtype])


def written(directory: Path, arrays: dict[str, np.ndarray]) -> Path:
    write_tensors(directory, arrays)
    return directory / FILE


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def assert_same(path: Path, arrays: dict[str, np.ndarray]) -> None:
    source = open_tensors(path)
    assert list(source.stored) == list(arrays)
    for name, array in arrays.items():
        got = source.get(name)
        assert source.stored[name] == StoredTensor(name, array.dtype.name, array.shape, path.name)
        assert got.dtype == array.dtype
        assert got.shape == array.shape
        assert got.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_bit_comes_back(tmp_path: Path, dtype: str) -> None:
    arrays = {f"a.{n}": bits(dtype, shape, n) for n, shape in enumerate([(7,), (3, 5), (2, 3, 4), (1, 1, 2, 2)])}
    path = written(tmp_path, arrays)
    assert_same(path, arrays)
    open_tensors(path).check()
    for name, tensor in torch.load(path, weights_only=True).items():  # as the official code reads it
        assert tensor.dtype == getattr(torch, dtype)
        assert tensor.view(torch.uint8).numpy().tobytes() == arrays[name].tobytes()


def test_dtypes_may_be_mixed_and_axes_turned(tmp_path: Path) -> None:
    whole = bits("float32", (6, 10))
    arrays = {"whole": whole, "turned": whole.T, "strided": whole[::2, ::3], "narrow": bits("bfloat16", (3, 4))}
    assert_same(written(tmp_path, arrays), arrays)


def test_nothing_of_an_array_is_written_to(tmp_path: Path) -> None:
    array = bits("float32", (4, 4))
    array.setflags(write=False)
    source = open_tensors(written(tmp_path, {"a": array}))
    assert source.get("a").tobytes() == array.tobytes()


def tensors() -> dict[str, torch.Tensor]:
    return {"x": torch.arange(12.0).view(3, 4), "y": torch.arange(3.0).to(torch.bfloat16)}


FORMS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "a dict": lambda found: found,
    "ordered": collections.OrderedDict,
    "parameters": lambda found: {name: torch.nn.Parameter(tensor) for name, tensor in found.items()},
    "transposed": lambda found: {name: tensor.t().contiguous().t() for name, tensor in found.items()},
    "every second": lambda found: {name: torch.stack([tensor, -tensor], -1)[..., 0] for name, tensor in found.items()},
    "in one storage": lambda found: {"x": (both := torch.arange(15.0))[:12].view(3, 4), "y": both[:3].bfloat16()},
    "negative views": lambda found: {**found, "x": torch.complex(found["x"], -found["x"]).conj().imag},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("old", [False, True])
def test_however_torch_stores_it(tmp_path: Path, form: str, old: bool) -> None:
    """Views, in the zip format and in the one before it."""
    path = saved(tmp_path / "m.pt", FORMS[form](tensors()), _use_new_zipfile_serialization=not old)
    source = open_tensors(path)
    np.testing.assert_array_equal(source.get("x"), np.arange(12, dtype=np.float32).reshape(3, 4))
    np.testing.assert_array_equal(source.get("y"), np.arange(3).astype(ml_dtypes.bfloat16))
    source.check()


def test_tensors_that_are_one_are_read_as_two(tmp_path: Path) -> None:
    tied = torch.arange(6.0)
    source = open_tensors(saved(tmp_path / "m.pt", {"in": tied, "out": tied, "part": tied[2:5].view(3, 1)}))
    assert source.get("in").tobytes() == source.get("out").tobytes() == tied.numpy().tobytes()
    assert source.get("part").tolist() == [[2.0], [3.0], [4.0]]


def test_nested_dicts_have_names_with_dots(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "m.pt", {"model": {"blocks.0": {"w": torch.ones(2)}, 1: torch.zeros(1)}, "b": torch.ones(1)}
    )
    assert set(open_tensors(path).stored) == {"model.blocks.0.w", "model.1", "b"}
    twice = saved(tmp_path / "t.pt", {"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"t\.pt: tensor 'a\.b' occurs twice"):
        open_tensors(twice)


@contextmanager
def watched() -> Iterator[list[int]]:
    """The largest growth of memory that is no file's, in bytes, sampled all along."""
    seen, done = [0], threading.Event()
    before = anonymous()

    def watch() -> None:
        while not done.wait(0.002):
            seen[0] = max(seen[0], anonymous() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
        seen[0] = max(seen[0], anonymous() - before)
    finally:
        done.set()
        thread.join()


def anonymous() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_values_are_memory_mapped_in_both_directions(tmp_path: Path) -> None:
    large = np.memmap(tmp_path / "raw", np.float32, "w+", shape=(LARGE // 4096, 1024))
    large[::16] = 1.0
    (tmp_path / "warm").mkdir()
    open_tensors(written(tmp_path / "warm", {"a": np.ones((2, 2), np.float32)}))
    with watched() as seen:
        path = written(tmp_path, {"a": large, "b": bits("bfloat16", (4, 4))})
    assert seen[0] < LARGE // 4
    with watched() as seen:
        source = open_tensors(path)
        assert sum(float(row.sum()) for row in source.get("a")) == large.shape[0] / 16 * 1024
        source.check()
    assert seen[0] < LARGE // 4
    with watched() as seen:
        torch.load(path, weights_only=True)
    assert seen[0] > LARGE // 2  # the measure sees what is not mapped


def test_a_flipped_bit_in_the_values_is_found(tmp_path: Path) -> None:
    arrays = {f"t{n}": bits("float32", (40,), n) for n in range(4)}
    path = written(tmp_path, arrays)
    whole = path.read_bytes()
    for name, array in arrays.items():
        damaged = bytearray(whole)
        damaged[whole.index(array.tobytes()) + 17] ^= 8
        path.write_bytes(damaged)
        source = open_tensors(path)
        assert source.get(name).tobytes() != array.tobytes()
        with pytest.raises(CheckpointError, match=r"model\.pt is damaged \(Bad CRC-32 for file 'archive/data/\d'\)"):
            source.check()


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    path, packed = written(tmp_path, {"a": np.ones(100, np.float32)}), tmp_path / "packed.pt"
    with zipfile.ZipFile(path) as one, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for name in one.namelist():
            other.writestr(name, one.read(name))
    with pytest.raises(CheckpointError, match=r"packed\.pt: 'archive/data\.pkl' is compressed; save it again"):
        open_tensors(packed)


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a list": (lambda: [torch.ones(1)], "holds a list; expected a dict of tensors by name"),
    "a tensor": (lambda: torch.ones(1), "holds a Tensor; expected a dict"),
    "an empty dict": (dict, "holds no tensor"),
    "a number": (lambda: {"a": torch.ones(1), "step": 3}, "'step' is a int; expected a tensor"),
    "None": (lambda: {"m": {"a": None}}, "'m.a' is a NoneType; expected a tensor"),
    "integers": (lambda: {"a": torch.ones(1, dtype=torch.int32)}, "tensor 'a' is torch.int32"),
    "truth values": (lambda: {"a": torch.ones(1, dtype=torch.bool)}, "tensor 'a' is torch.bool"),
    "complex numbers": (lambda: {"a": torch.ones(1, dtype=torch.complex64)}, "tensor 'a' is torch.complex64"),
    "sparse": (lambda: {"a": torch.eye(3).to_sparse()}, "tensor 'a' is torch.float32, torch.sparse_coo"),
    "quantised": (lambda: {"a": quantised()}, "tensor 'a' is torch.qint8"),
    "no values": (lambda: {"a": torch.ones(2, device="meta")}, "tensor 'a' is torch.float32"),
    "repeated values": (lambda: {"a": torch.ones(1).expand(5)}, "tensor 'a' repeats stored values; save it again"),
    "a module": (lambda: torch.nn.Linear(2, 2), "asks for more than tensors to be loaded, which is never done"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_all_but_dense_floats_are_refused(tmp_path: Path, what: str) -> None:
    make, words = REFUSED[what]
    path = saved(tmp_path / "m.pt", make())
    with pytest.raises(CheckpointError) as caught:
        open_tensors(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*model\.pt"):
            write_tensors(tmp_path, {"a": np.ones(100_000, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
