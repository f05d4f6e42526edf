"""Damage in hundreds of ways: each ends in one line that names it, or in exactly the same weights; nothing is left."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("h5py")

from tests.checkpoints.corruption.cases import RAN, judge, refuse_remains
from tests.checkpoints.corruption.groups import GROUPS, PAIRS, cases
from tests.checkpoints.corruption.judging import Homes, judged
from tests.checkpoints.corruption.sources import SOURCES

ROOT = Path(__file__).resolve().parents[2]
IN_A_PROCESS = [
    ("native", "flip anything"),
    ("native-sharded", "cut safetensors"),
    ("foreign", "edited header"),
    ("foreign", "absurd counts"),
    ("foreign-sharded", "wrong index"),
    ("huggingface", "manifest names"),
    ("unlisted", "unreadable"),
    ("torch", "cut zip"),
    ("torch-bare", "hostile"),
    ("torch-bare", "not finite"),
    ("keras-bare", "cut zip"),
    ("keras-bare", "edited datasets"),
]


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Homes:
    return Homes(tmp_path_factory.mktemp("homes"))


@pytest.mark.parametrize(("source", "group"), PAIRS)
def test_damage_ends_in_one_line(source: str, group: str, homes: Homes, tmp_path: Path) -> None:
    assert judged(source, group, homes, tmp_path) == {}


@pytest.mark.prove
@pytest.mark.parametrize(("source", "group"), PAIRS)
def test_thousands_of_damages_end_in_one_line(source: str, group: str, homes: Homes, tmp_path: Path) -> None:
    assert judged(source, group, homes, tmp_path, times=4) == {}


def test_there_are_enough_and_nine_in_ten_must_be_refused(homes: Homes) -> None:
    found = [case for source, group in PAIRS for case in cases(source, group, homes.home(source))]
    assert len(found) >= 900
    assert sum(case.strict for case in found) >= 0.9 * len(found)
    assert {group for _, group in PAIRS} == set(GROUPS)


@pytest.mark.parametrize(("source", "group"), IN_A_PROCESS)
def test_the_command_itself_says_it(source: str, group: str, homes: Homes, tmp_path: Path) -> None:
    home, destination = tmp_path / "home", tmp_path / "new"
    case = next(case for case in cases(source, group, homes.home(source)) if case.strict)
    shutil.copytree(homes.home(source), home)
    case.damage(home)
    command = [sys.executable, "-m", "griffin_core", *SOURCES[source].command(home, destination), *case.options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    judge(case, done.returncode, done.stdout, done.stderr)
    refuse_remains(destination)
    assert not (home / RAN).exists()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("source", ["foreign", "torch", "keras-bare"])
def test_absurd_sizes_take_no_memory(source: str, tmp_path: Path) -> None:
    """In a process that may not have more than a fraction of a gigabyte beyond what it starts with."""
    command = [sys.executable, "-m", "tests.checkpoints.corruption.limited", source, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["wrong"] == {}
    assert report["cases"] > 40
    assert report["growth"] < 200e6
