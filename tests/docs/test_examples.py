"""The examples run, and what they print is right."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import griffin_core as griffin

FOLDER = Path(__file__).resolve().parents[2] / "examples"
LARGEST_DIFFERENCE = 2e-5
"""Of logits of order 1 in float32: what parity with the public code is held to as well."""


def run(name: str, *words: str, where: Path) -> str:
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *words],
        cwd=where,
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [p.name for p in sorted(FOLDER.glob("*.py")) if f'"{p.name}"' not in text] == []


@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_forward(backend: str, tmp_path: Path) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
    shown = run("01_forward.py", backend, where=tmp_path)
    assert shown.startswith(f"{backend}: logits (1, 45, 264) float32\n")
    differences = [float(value) for value in re.findall(r"difference.*: (\S+)$", shown, re.MULTILINE)]
    assert len(differences) == 3
    assert max(differences) < LARGEST_DIFFERENCE


def test_verify_my_kernel(tmp_path: Path) -> None:
    shown = run("02_verify_my_kernel.py", where=tmp_path)
    assert "right: conforms\n" in shown
    assert "multiplies: does not conform" in shown


def test_train_on_my_text(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    shown = run("03_train_on_my_text.py", "--steps", "3", where=tmp_path)
    first, last = (float(value) for value in re.search(r"loss (\S+) -> (\S+)", shown).groups())  # type: ignore[union-attr]
    assert last < first
    assert (tmp_path / "runs" / "my-text" / "checkpoint" / "manifest.json").is_file()


def test_save_and_resume_state(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    shown = run("04_save_and_resume_state.py", where=tmp_path)
    assert "continuation is the same: True" in shown
    assert len(re.findall(r"^\.\.\. of a", shown, re.MULTILINE)) == 2


def test_keras_finetune(tmp_path: Path) -> None:
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    shown = run("05_keras_finetune.py", "--epochs", "1", where=tmp_path)
    assert "epoch 1 of 1\n" in shown
    assert "epoch 1: import " in shown
    assert (tmp_path / "runs" / "keras-finetune-checkpoint" / "manifest.json").is_file()


@pytest.mark.prove
def test_keras_finetune_survives_being_killed(tmp_path: Path) -> None:
    """Killed after its second epoch has begun, and run again: the weights are those of the run that was left alone."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    script, digests = str(FOLDER / "05_keras_finetune.py"), []
    for name in ("left", "killed"):
        where = tmp_path / name
        where.mkdir()
        if name == "killed":
            command = [sys.executable, "-u", script, "--epochs", "3"]
            with subprocess.Popen(command, cwd=where, stdout=subprocess.PIPE, text=True) as begun:
                for line in begun.stdout or ():
                    if line.startswith("epoch 1: "):
                        break
                begun.kill()
        shown = run("05_keras_finetune.py", "--epochs", "3", where=where)
        assert ("epoch 2 of 3\n" if name == "killed" else "epoch 1 of 3\n") in shown
        digests.append(griffin.load(where / "runs" / "keras-finetune-checkpoint", backend="numpy").digest)
    assert digests[0] == digests[1]
