"""Damage of an official Flax directory, as the command reports it; damage of the store itself is in tests/jax."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from griffin_core.checkpoints.convert import convert
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.cli import main

pytest.importorskip("tensorstore")
TINY = Path(__file__).with_name("tiny")
Run = Callable[[Path], tuple[int, str]]


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A directory that we wrote, with its manifest."""
    convert(TINY / "native", tmp_path / "ours", to="recurrentgemma-flax")
    return tmp_path / "ours"


@pytest.fixture
def bare(ours: Path) -> Path:
    """The same without a manifest: the arrays, their descriptions and a config."""
    (ours / "manifest.json").unlink()
    return ours


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Convert; the exit code and the one line, after a look at what is left."""

    def call(source: Path) -> tuple[int, str]:
        code = main(["convert", str(source), str(tmp_path / "new")])
        out, err = capsys.readouterr()
        if code:
            assert (out, err.count("\n")) == ("", 1)
            assert err.startswith("griffin: error: ")
            assert not (tmp_path / "new").exists()
            assert not (tmp_path / "new.part").exists()
        return code, err

    return call


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_every_flipped_bit_is_noticed_where_there_is_a_manifest(ours: Path, run: Run) -> None:
    draw = random.Random(0)
    for path in files(ours):
        whole = path.read_bytes()
        for _ in range(3):
            damaged = bytearray(whole)
            damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            code, said = run(ours)
            assert code == 1
            assert path.name in said
        path.write_bytes(whole)
    assert open_checkpoint(ours).digest == open_checkpoint(TINY / "native").digest


def test_cut_and_lost_files_end_in_one_line(bare: Path, run: Run) -> None:
    """Or in the same weights: nobody needs every description."""
    draw, errors, same = random.Random(0), 0, open_checkpoint(TINY / "native").digest
    for path in files(bare):
        whole = path.read_bytes()
        for length in (None, 0, *(draw.randrange(len(whole)) for _ in range(4))):
            path.unlink() if length is None else path.write_bytes(whole[:length])
            code, said = run(bare)
            if code == 0:
                assert open_checkpoint(bare.with_name("new")).digest == same
                shutil.rmtree(bare.with_name("new"))
            else:
                assert str(bare) in said
                errors += 1
            path.write_bytes(whole)
    assert errors >= 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mlp_width": 50}, "parameters do not match the config"),
        ({"num_layers": 10**9}, "num_layers"),
        ({"vocab_size": 10**12}, "vocab_size|wrong shape"),
        ({"gate_blocks": 4}, "gate_blocks=4"),
        ({"attention_window": None}, "attention_window=null"),
        ({"block_pattern": ["attention"]}, "missing: .*unused: "),
    ],
)
def test_a_config_that_does_not_fit_is_named(bare: Path, run: Run, change: dict[str, object], said: str) -> None:
    file = bare / "config.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({**fields, "griffin": {**fields["griffin"], **change}}))
    code, line = run(bare)
    assert code == 1
    assert re.search(said, line), line
