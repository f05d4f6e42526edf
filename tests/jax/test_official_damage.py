"""Damaged and hostile orbax directories: one clear line that names the directory, and never a wrong description."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("orbax.checkpoint")

import orbax.checkpoint as ocp
from orbax.checkpoint import msgpack_utils

from griffin_core.errors import CheckpointError
from griffin_core_jax.official_directory import open_tensors, write_tensors

KEY = "final_norm.scale"
OCDBT, FILES, PACKED, WRITTEN = "ocdbt", "files", "packed", "written"
DAMAGES = 40
"""Random ones of each source."""
FLAT = {
    "embedder/input_embedding": np.random.default_rng(5).normal(size=(500, 8)).astype(ml_dtypes.bfloat16),
    "blocks.0/mlp_block/ffw_up/w": np.linspace(-1, 1, 192, dtype=np.float32).reshape(2, 8, 12),
    "final_norm/scale": np.arange(1, 9, dtype=np.float32),
}


def tree() -> dict[str, Any]:
    return {
        "embedder": {"input_embedding": FLAT["embedder/input_embedding"]},
        "blocks.0": {"mlp_block": {"ffw_up": {"w": FLAT["blocks.0/mlp_block/ffw_up/w"]}}},
        "final_norm": {"scale": FLAT["final_norm/scale"]},
    }


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good directory of each kind, by name."""
    base = tmp_path_factory.mktemp("sources")
    ocp.PyTreeCheckpointer().save(base / OCDBT, tree())
    ocp.PyTreeCheckpointer(use_ocdbt=False).save(base / FILES, tree())
    for name in (PACKED, WRITTEN):
        (base / name).mkdir()
    (base / PACKED / "checkpoint").write_bytes(msgpack_utils.msgpack_serialize(tree()))
    write_tensors(base / WRITTEN, FLAT)
    return base


@pytest.fixture
def copy(sources: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A function that copies a good directory, to be damaged."""

    def make(name: str) -> Path:
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        return Path(shutil.copytree(sources / name, tmp_path / "model"))

    return make


def read_all(directory: Path) -> dict[str, np.ndarray]:
    opened = open_tensors(directory)
    return {name: opened.get(name) for name in opened.stored}


def refused(directory: Path) -> str:
    """The line with which a directory is refused."""
    with pytest.raises(CheckpointError) as caught:
        read_all(directory)
    line = str(caught.value)
    assert str(directory) in line
    assert "\n" not in line
    assert len(line) < 500 + 3 * len(str(directory))
    return line


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_tree(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the entry of one leaf in the description of the tree."""
    body = json.loads((directory / "_METADATA").read_text())
    change(body["tree_metadata"]["('final_norm', 'scale')"])
    (directory / "_METADATA").write_text(json.dumps(body))


def key(text: Any) -> Callable[[Path], None]:
    return lambda d: edit_tree(d, lambda entry: entry["key_metadata"][0].update(key=text))


def zarray(**fields: Any) -> Callable[[Path], None]:
    return lambda d: edit(d / KEY / ".zarray", **fields)


def absurd(directory: Path) -> None:
    edit(directory / KEY / ".zarray", shape=[2**45], chunks=[2**45])


def chunk(directory: Path) -> None:
    """More memory than any machine has, with files enough to make the size thinkable."""
    with (directory / "padding").open("wb") as file:
        file.truncate(2**40)
    edit(directory / KEY / ".zarray", shape=[2**52], chunks=[2**52])


def unpack(*changes: tuple[bytes, bytes]) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        data = (directory / "checkpoint").read_bytes()
        for old, new in changes:
            assert old in data
            data = data.replace(old, new)
        (directory / "checkpoint").write_bytes(data)

    return change


CASES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "no description": (OCDBT, lambda d: (d / "_METADATA").unlink(), "is incomplete: manifest.ocdbt is there"),
    "no database": (OCDBT, lambda d: (d / "manifest.ocdbt").unlink(), "lacks blocks.0.mlp_block.ffw_up.w"),
    "no values": (OCDBT, lambda d: shutil.rmtree(d / "ocdbt.process_0"), "tensor 'embedder/input_embedding'"),
    "nothing": (OCDBT, lambda d: [shutil.rmtree(d), d.mkdir()], "is no orbax checkpoint"),
    "a file": (OCDBT, lambda d: [shutil.rmtree(d), d.write_text("x")], "is a file"),
    "no directory": (OCDBT, shutil.rmtree, "no such file"),
    "two items": (OCDBT, lambda d: [shutil.copytree(d, d.parent / "x"), *_two(d)], "several trees (default, params)"),
    "no array": (FILES, lambda d: shutil.rmtree(d / KEY), f"lacks {KEY}"),
    "no chunk": (FILES, lambda d: (d / KEY / "0").unlink(), "tensor 'final_norm/scale'"),
    "no header": (FILES, lambda d: (d / KEY / ".zarray").unlink(), "tensor 'final_norm/scale'"),
    "cut chunk": (FILES, lambda d: (d / KEY / "0").write_bytes(b"(\xb5/\xfd"), "tensor 'final_norm/scale'"),
    "longer": (FILES, zarray(shape=[16], chunks=[16]), "expected at least 64"),
    "longer by a chunk": (FILES, zarray(shape=[16]), "tensor 'final_norm/scale'"),
    "shorter": (FILES, zarray(shape=[4], chunks=[4]), "tensor 'final_norm/scale'"),
    "shorter than its chunk": (FILES, zarray(shape=[4]), "larger pieces, [8]"),
    "negative": (FILES, zarray(shape=[-8]), "tensor 'final_norm/scale'"),
    "absurd": (FILES, absurd, "more than"),
    "absurd chunk": (FILES, chunk, "needs memory for 4503599627370496 values at once"),
    "complex": (FILES, zarray(dtype="<c8"), "has the dtype complex64"),
    "record": (FILES, zarray(dtype=[["a", "<f4"], ["b", "<f4"]]), "tensor 'final_norm/scale'"),
    "no JSON": (OCDBT, lambda d: (d / "_METADATA").write_bytes(b"\xff{"), "is damaged"),
    "deep JSON": (OCDBT, lambda d: (d / "_METADATA").write_text("[" * 99_999), "is damaged"),
    "long JSON": (OCDBT, lambda d: (d / "_METADATA").write_text(" " * 10_000_001), "more than a tree takes"),
    "empty tree": (OCDBT, lambda d: edit(d / "_METADATA", tree_metadata={}), "holds an empty tree"),
    "key that climbs": (FILES, key("../a\n"), "printable text without a slash"),
    "key of dots": (FILES, lambda d: edit_tree(d, lambda e: e.update(key_metadata=[{"key": ".."}])), "printable text"),
    "no key": (FILES, lambda d: edit_tree(d, lambda e: e.update(key_metadata=[])), "printable text"),
    "key that is a number": (FILES, key(3), "is damaged"),
    "key that is not there": (OCDBT, key("other"), "tensor 'other/scale'"),
    "leaf twice": (OCDBT, lambda d: edit_tree(d, _as_embedder), "names a leaf twice"),
    "packed, empty": (PACKED, lambda d: (d / "checkpoint").write_bytes(b""), "is damaged"),
    "packed, cut": (PACKED, lambda d: os.truncate(d / "checkpoint", 500), "cut short"),
    "packed, more": (PACKED, unpack((b"\x83", b"\x82")), "follow"),
    "packed, deep": (PACKED, lambda d: (d / "checkpoint").write_bytes(b"\x91" * 999), "deeper than 32"),
    "packed, rank": (PACKED, unpack((b"\x93\x91\x08", b"\x93\x9f\x08")), "expected int"),
    "packed, shape": (PACKED, unpack((b"\x93\x91\x08", b"\x93\x91\x09")), "shape [9] and dtype float32 has 32 bytes"),
    "packed, dtype": (PACKED, unpack((b"\xa7float32", b"\xa7object0")), "has the dtype 'object0'"),
    "packed, elsewhere": (PACKED, lambda d: (d / "checkpoint").write_bytes(_elsewhere("../x")), "without a slash"),
    "packed, no values": (PACKED, lambda d: (d / "checkpoint").write_bytes(_elsewhere("x")), "lacks x"),
    "link to a file": (OCDBT, lambda d: (d / "link").symlink_to("/etc/hostname"), "a link that leaves"),
    "link to a directory": (FILES, lambda d: (d / "link").symlink_to(d.parent), "a link that leaves"),
    "linked item": (OCDBT, lambda d: _linked(d), "a link that leaves"),
    "broken link": (FILES, lambda d: (d / "link").symlink_to(d / "none"), "no such file"),
    "pipe": (FILES, lambda d: os.mkfifo(d / "pipe"), "neither a file nor a directory"),
    **{
        f"leaf {value!r}": (OCDBT, lambda d, value=value: _leaf(d, value), "not an array")
        for value in ("a", None, 3, {})
    },
}


def _two(directory: Path) -> list[Path]:
    moved = directory.parent / "x"
    shutil.rmtree(directory)
    return [Path(shutil.copytree(moved, directory / name)) for name in ("default", "params")]


def _linked(directory: Path) -> None:
    shutil.move(directory, directory.parent / "elsewhere")
    directory.mkdir()
    (directory / "params").symlink_to(directory.parent / "elsewhere")


def _as_embedder(entry: dict[str, Any]) -> None:
    entry["key_metadata"] = [{"key": "embedder"}, {"key": "input_embedding"}]


def _elsewhere(name: str) -> bytes:
    return msgpack_utils.msgpack_serialize({name: f"PLACEHOLDER://{name}"})


def _leaf(directory: Path, value: Any) -> None:
    shutil.rmtree(directory)
    ocp.PyTreeCheckpointer().save(directory, {**tree(), "other": value})


@pytest.mark.parametrize("case", CASES)
def test_damage_is_refused_in_one_line(case: str, copy: Callable[[str], Path]) -> None:
    source, damage, expected = CASES[case]
    directory = copy(source)
    check_equal(read_all(directory))
    damage(directory)
    assert expected in refused(directory)


def check_equal(found: dict[str, np.ndarray], values: bool = True) -> None:
    assert {n: (a.dtype, a.shape) for n, a in found.items()} == {n: (a.dtype, a.shape) for n, a in FLAT.items()}
    assert not values or all(found[name].tobytes() == array.tobytes() for name, array in FLAT.items())


def damaged(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """(kind, bytes) of some damage to a file."""
    at, kind = int(rng.integers(len(data))) if data else 0, str(rng.choice(["flip", "cut", "zeros", "more", "swap"]))
    if kind == "flip" and data:
        return kind, data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
    if kind == "zeros":
        return kind, data[:at] + b"\0" * (len(data) - at)
    if kind == "swap":
        return kind, data[at:] + data[:at]
    return kind, data[:at] if kind == "cut" else data + rng.bytes(9)


@pytest.mark.parametrize("source", [OCDBT, WRITTEN, FILES, PACKED])
def test_random_damage_is_refused_or_without_effect(source: str, copy: Callable[[str], Path]) -> None:
    """Values carry no checksum in these formats: damage to their bytes alone can give other values, and only that.

    Nor do descriptions outside a database: those of single arrays and of msgpack are only cut here.
    """
    rng = np.random.default_rng(11)
    outcomes = []
    for _ in range(DAMAGES):
        directory = copy(source)
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        path = files[int(rng.integers(len(files)))]
        kind, data = damaged(path.read_bytes(), rng)
        if source == PACKED or path.name == ".zarray":
            kind, data = "cut", path.read_bytes()[: int(rng.integers(path.stat().st_size))]
        path.write_bytes(data)
        try:
            found = read_all(directory)
        except CheckpointError:
            outcomes.append(refused(directory))
        else:
            holds_values = path.parent.name in ("d", *(name.replace("/", ".") for name in FLAT))
            check_equal(found, values=not holds_values or kind in ("cut", "more"))
    assert len(outcomes) > DAMAGES / 4
