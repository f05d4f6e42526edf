"""Damage in hundreds of ways: each ends in one line that names it, or in exactly the same weights; nothing is left."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.checkpoints.corruption.cases import Facts, attempt, facts, judge, refuse_remains
from tests.checkpoints.corruption.groups import GROUPS, PAIRS, cases
from tests.checkpoints.corruption.sources import MODEL, SOURCES

ROOT = Path(__file__).resolve().parents[2]
Pristine = Callable[[str], tuple[Path, Facts]]


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Pristine:
    """The home and the facts of an undamaged source, built when it is first asked for."""
    built: dict[str, tuple[Path, Facts]] = {}

    def home(name: str) -> tuple[Path, Facts]:
        if name not in built:
            path = tmp_path_factory.mktemp(name)
            SOURCES[name].build(path)
            built[name] = path, facts(SOURCES[name], path)
        return built[name]

    return home


def judged(source: str, group: str, pristine: Pristine, place: Path, times: int = 0) -> dict[str, str]:
    """Run the cases of a group on a source: what is wrong, by the case's label."""
    home, known = pristine(source)
    wrong = {}
    for case in cases(source, group, home, times):
        try:
            attempt(SOURCES[source], case, home, place / "case", known)
        except AssertionError as error:
            wrong[case.label] = str(error)
        for left in (place / "case", place / "case-out"):
            shutil.rmtree(left, ignore_errors=True)
    return wrong


@pytest.mark.parametrize(("source", "group"), PAIRS)
def test_damage_ends_in_one_line(source: str, group: str, pristine: Pristine, tmp_path: Path) -> None:
    assert judged(source, group, pristine, tmp_path) == {}


@pytest.mark.prove
@pytest.mark.parametrize(("source", "group"), PAIRS)
def test_thousands_of_damages_end_in_one_line(source: str, group: str, pristine: Pristine, tmp_path: Path) -> None:
    assert judged(source, group, pristine, tmp_path, times=4) == {}


def test_there_are_enough_and_nine_in_ten_must_be_refused(pristine: Pristine) -> None:
    found = [case for source, group in PAIRS for case in cases(source, group, pristine(source)[0])]
    assert len(found) >= 1000
    assert sum(case.strict for case in found) >= 0.9 * len(found)
    assert {group for _, group in PAIRS} == set(GROUPS)


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
]


@pytest.mark.parametrize(("source", "group"), IN_A_PROCESS)
def test_the_command_itself_says_it(source: str, group: str, pristine: Pristine, tmp_path: Path) -> None:
    home, destination = tmp_path / "home", tmp_path / "new"
    case = next(case for case in cases(source, group, pristine(source)[0]) if case.strict)
    shutil.copytree(pristine(source)[0], home)
    case.damage(home)
    command = [sys.executable, "-m", "griffin_core", *SOURCES[source].command(home, destination)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    judge(case, done.returncode, done.stdout, done.stderr)
    refuse_remains(destination)
    assert not (home / "ran").exists()


@pytest.mark.parametrize("source", ["foreign", "torch"])
def test_absurd_sizes_take_no_memory(source: str, tmp_path: Path) -> None:
    """In a process that may not have more than a fraction of a gigabyte beyond what it starts with."""
    command = [sys.executable, "-m", "tests.checkpoints.corruption.limited", source, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["wrong"] == {}
    assert report["cases"] > 50
    assert report["growth"] < 200e6
    assert MODEL not in {path.name for path in tmp_path.iterdir()}
