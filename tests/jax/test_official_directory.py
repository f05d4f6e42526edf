"""The store of the official Flax checkpoints: every style that orbax wrote is read, and what is written orbax reads."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("orbax.checkpoint")

import orbax.checkpoint as ocp
from orbax.checkpoint import msgpack_utils, utils

from griffin_core.errors import CheckpointError
from griffin_core_jax import official_directory, official_writer
from griffin_core_jax.official_directory import OrbaxTensors, open_tensors, write_tensors
from griffin_core_jax.official_packed import read_packed
from griffin_core_jax.official_tree import problem_of_names

Arrays = Mapping[str, np.ndarray]
DTYPES = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
EXTRA = {"config.json": "{}", "tokenizer.json": "[]", "tokenizer.model": "\0", "manifest.json": "{}"}


def bits(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Any bits at all, NaNs with payloads too."""
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(rng.bytes(size), dtype).reshape(shape)


def nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *levels, last = name.split("/")
        inner = tree
        for level in levels:
            inner = inner.setdefault(level, {})
        inner[last] = array
    return tree


def check_same(found: OrbaxTensors | Mapping[str, Any], expected: Arrays) -> None:
    """Names, descriptions and every bit."""
    if isinstance(found, OrbaxTensors):
        assert {n: (t.dtype, t.shape, t.nbytes) for n, t in found.stored.items()} == {
            n: (a.dtype.name, a.shape, a.nbytes) for n, a in expected.items()
        }
        found = {name: found.get(name) for name in found.stored}
        assert not any(array.flags.writeable for array in found.values())
    for name, array in expected.items():
        got = np.asarray(found[name])
        assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes()), name


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    rng = np.random.default_rng(3)
    shapes = {
        "embedder/input_embedding": (50, 8),
        "blocks.0/mlp_block/ffw_up/w": (2, 8, 12),
        "blocks.0/mlp_block/ffw_up/b": (2, 1, 1, 12),
        "blocks.10/temporal_pre_norm/scale": (8,),
        "final_norm/scale": (8,),
    }
    return {name: bits(rng, shape, DTYPES[i % 3]) for i, (name, shape) in enumerate(shapes.items())}


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scratch directory that nearly every array is large enough for."""
    monkeypatch.setattr(official_directory, "IN_MEMORY", 20)
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def _packed(path: Path, tree: Any, packed: Callable[[str], bool], metadata: bool = False) -> None:
    """An old directory: a msgpack file with some of the arrays, the others beside it."""
    ocp.PyTreeCheckpointer(use_ocdbt=False).save(path, tree)
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = {".".join(key.key for key in keys): value for keys, value in flat}
    for name in filter(packed, names):
        shutil.rmtree(path / name)
    leaves = (value if packed(name) else utils.leaf_placeholder(name) for name, value in names.items())
    body = jax.tree_util.tree_unflatten(jax.tree.structure(tree), leaves)
    (path / "checkpoint").write_bytes(msgpack_utils.msgpack_serialize(body))
    for file in ("_CHECKPOINT_METADATA", *(() if metadata else ("_METADATA",))):
        (path / file).unlink()


def _standard(path: Path, tree: Any) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


def _step(path: Path, tree: Any) -> None:
    with ocp.CheckpointManager(path.parent / "run") as manager:
        manager.save(7, args=ocp.args.StandardSave(tree))
        manager.wait_until_finished()
    (path.parent / "run" / "7").rename(path)


def _without(*names: str) -> Callable[[Path, Any], None]:
    def save(path: Path, tree: Any) -> None:
        ocp.PyTreeCheckpointer(use_ocdbt=False).save(path, tree)
        for name in names:
            (path / name).unlink()

    return save


def _handler(**options: bool) -> Callable[[Path, Any], None]:
    return lambda path, tree: ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)).save(path, tree)


STYLES: dict[str, Callable[[Path, Any], None]] = {
    "PyTreeCheckpointer": lambda path, tree: ocp.PyTreeCheckpointer().save(path, tree),
    "of jax arrays": lambda path, tree: ocp.PyTreeCheckpointer().save(path, jax.tree.map(jax.numpy.asarray, tree)),
    "StandardCheckpointer": _standard,
    "a step of a manager": _step,
    "Checkpointer": _handler(),
    "uncompressed": _handler(use_compression=False),
    "third version of zarr": _handler(use_zarr3=True),
    "third version of zarr, files": _handler(use_zarr3=True, use_ocdbt=False),
    "files": _handler(use_ocdbt=False),
    "files, bare": _without("_CHECKPOINT_METADATA"),
    "files, named by msgpack": lambda path, tree: _packed(path, tree, lambda name: False),
    "files, named twice": lambda path, tree: _packed(path, tree, lambda name: False, metadata=True),
    "msgpack": lambda path, tree: _packed(path, tree, lambda name: True),
    "msgpack, half": lambda path, tree: _packed(path, tree, lambda name: name.endswith(("w", "scale"))),
    "msgpack, half, named twice": lambda path, tree: _packed(path, tree, lambda n: n.endswith("w"), metadata=True),
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "params"])
@pytest.mark.parametrize("style", STYLES)
def test_every_style_of_orbax_is_read(style: str, wrapped: bool, arrays: Arrays, tmp_path: Path, scratch: Path) -> None:
    tree = nested(arrays)
    STYLES[style](tmp_path / "made", {"params": tree} if wrapped else tree)
    check_same(open_tensors(tmp_path / "made"), arrays)
    check_same(open_tensors(tmp_path / "made", scratch), arrays)
    assert list(scratch.iterdir()) == []


def test_arrays_in_pieces_of_msgpack_are_read(
    arrays: Arrays, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(msgpack_utils, "MAX_CHUNK_SIZE", 100)
    STYLES["msgpack"](tmp_path / "made", nested(arrays))
    pieces = read_packed(tmp_path / "made" / "checkpoint")["embedder", "input_embedding"].ranges
    assert len(pieces) == arrays["embedder/input_embedding"].nbytes // 100
    check_same(open_tensors(tmp_path / "made", scratch), arrays)


@pytest.mark.peers
def test_the_official_writer_is_read(arrays: Arrays, tmp_path: Path) -> None:
    official = pytest.importorskip("recurrentgemma.jax.utils", exc_type=ImportError)
    official.save_parameters(str(tmp_path / "made"), jax.tree.map(jax.numpy.asarray, nested(arrays)))
    check_same(open_tensors(tmp_path / "made"), arrays)


keys = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=4)
names = st.lists(keys, min_size=1, max_size=3).map(tuple)
shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@given(data=st.data(), paths=st.lists(names, min_size=1, max_size=6, unique=True), seed=st.integers(0, 99))
def test_what_is_written_is_read_bit_for_bit(
    data: st.DataObject, paths: list[tuple[str, ...]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng, directory = np.random.default_rng(seed), tmp_path_factory.mktemp("round")
    made = {"/".join(p): bits(rng, data.draw(shapes), data.draw(st.sampled_from(DTYPES))) for p in paths}
    levels = {path[:depth] for path in paths for depth in range(1, len(path))}
    wrapped = all(path[0] == "params" and len(path) > 1 for path in paths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(official_writer, "CHUNK", data.draw(st.integers(40, 400)))
        patch.setattr(official_writer, "PENDING", 4000)
        patch.setattr(official_directory, "IN_MEMORY", 100)
        if problem_of_names(paths) or levels.intersection(paths) or wrapped:
            with pytest.raises(CheckpointError, match="cannot write"):
                write_tensors(directory, made)
            return
        write_tensors(directory, made)
        check_same(open_tensors(directory), made)
        check_same(open_tensors(directory, directory), made)
    made_by_us = {"_METADATA", "_CHECKPOINT_METADATA", "checkpoint", "manifest.ocdbt", "d"}
    assert {path.name for path in directory.iterdir()} == made_by_us


def test_orbax_reads_what_is_written_beside_other_files(arrays: Arrays, tmp_path: Path) -> None:
    for name, text in EXTRA.items():
        (tmp_path / name).write_text(text)
    write_tensors(tmp_path, arrays)
    check_same(open_tensors(tmp_path), arrays)
    with ocp.StandardCheckpointer() as standard:
        trees = [ocp.PyTreeCheckpointer().restore(tmp_path), standard.restore(tmp_path)]
        trees.append(standard.restore(tmp_path, jax.tree.map(np.zeros_like, nested(arrays))))
    described = ocp.PyTreeCheckpointer().metadata(tmp_path).item_metadata.tree
    assert jax.tree.structure(described) == jax.tree.structure(nested(arrays))
    for tree in trees:
        assert jax.tree.structure(tree) == jax.tree.structure(nested(arrays))
        for name, leaf in zip(sorted(arrays), jax.tree.leaves(tree), strict=True):
            check_same({name: leaf}, {name: arrays[name]})
    assert {name: (tmp_path / name).read_text() for name in EXTRA} == EXTRA


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not tell the anonymous memory")
def test_memory_stays_far_below_the_arrays(tmp_path: Path) -> None:
    shape = (2, 144, 1 << 20)
    values = np.memmap(tmp_path / "values", ml_dtypes.bfloat16, "w+", shape=shape)
    values[-1, -1, -1] = 3
    (tmp_path / "made").mkdir()
    peak = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.003):
            lines = Path("/proc/self/status").read_text().splitlines()
            peak.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        write_tensors(tmp_path / "made", {"embedder/input_embedding": values})
        read = open_tensors(tmp_path / "made", tmp_path).get("embedder/input_embedding")
    finally:
        stop.set()
        watcher.join()
    assert isinstance(read, np.memmap)
    assert read[-1, -1, -1] == values[-1, -1, -1] == 3
    assert max(peak) - peak[0] < values.nbytes / 4, (max(peak) - peak[0]) / values.nbytes
