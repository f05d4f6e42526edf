"""The command ``griffin bench``."""

from __future__ import annotations

import json

import pytest

from griffin_core.benchmarks import service
from griffin_core.cli import main

SMALL = ["--backend", "numpy", "--tokens", "8", "--width", "4", "--runs", "2"]


@pytest.fixture(autouse=True)
def unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "require_conformance", lambda setup, path: None)


def test_json_is_one_document_with_every_round(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scan", *SMALL, "--json"]) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["path"] == "scan"
    assert report["case"]["tokens"] == 8
    assert all(len(rounds) == 2 for rounds in report["rounds"].values())
    assert "copy of the same bytes" in shown.err


def test_the_table_names_the_case_and_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scan", *SMALL]) == 0
    shown = capsys.readouterr().out
    assert "scan: batch 1, tokens 8, width 4, float32, 2 threads" in shown
    assert "copy / time" in shown
    assert "device " in shown
    assert "commit " in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scan", "--kernel", "nope", *SMALL], "numpy has no kernel 'nope'"),
        (["prefill", "--preset", "griffin-tny"], "did you mean 'griffin-tiny'"),
        (["decode", "--config", "nowhere.json"], "nowhere.json is not a file"),
        (["scan", *SMALL, "--threads", "0"], "threads=0"),
        (["sprint"], "sprint"),
    ],
)
def test_wrong_use_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.strip().splitlines()
    assert message in line
