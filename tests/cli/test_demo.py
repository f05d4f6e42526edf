"""``griffin demo``: its verdict, its care with directories, and a whole run on a small scale."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from griffin_core import cli
from griffin_core.demo import report, run
from griffin_core.errors import InputError
from griffin_core.text import corpus
from griffin_core.text.files import Document

GOOD: dict[str, Any] = {
    "heldout_bits_per_byte": 2.1,
    "gzip_bits_per_byte": 2.6,
    "xz_bits_per_byte": 2.4,
    "continuation": {"same": True},
    "verification": {"passed": True, "kernels": [["linear_scan", 20, "none", 300, 0.5]]},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"heldout_bits_per_byte": 2.4}, "the model needs 2.400 bits per byte on the held-out text, xz -9 2.400"),
        ({"heldout_bits_per_byte": math.nan}, "gzip -9 2.600"),
        ({"continuation": {"same": False}}, "the resumed continuation is not the same: its tokens differ"),
        ({"continuation": {"same": False, "reason": "it ended"}}, "not the same: it ended"),
        ({"verification": {"passed": False, "kernels": []}}, "every kernel: nothing was judged"),
        (
            {"verification": {"passed": False, "kernels": [["a", 1, "split", 3, 2.0], ["b", 1, "none", 3, 0.1]]}},
            "verification fails for a",
        ),
    ],
)
def test_verdict(change: dict[str, Any], said: str | None) -> None:
    failures = run.verdict({**GOOD, **change})
    assert (failures == []) if said is None else (said in failures[0])


@pytest.mark.parametrize(
    ("step", "seconds", "steps"),
    [
        (0.1, None, 1800),
        (0.2, None, 1500),
        (0.4, None, 900),
        (1.0, None, 360),
        (30.0, None, 20),
        (0.2, 10.0, 50),
        (1e-6, 60.0, 20_000),
    ],
)
def test_a_slow_machine_takes_longer_up_to_a_point(step: float, seconds: float | None, steps: int) -> None:
    from griffin_core.demo.training import steps_for

    assert steps_for(step, seconds) == steps


def test_smoothing_averages_what_came_before() -> None:
    points = [(float(i), float(i % 2)) for i in range(1, 401)]
    smooth = report.smoothed(points)
    assert smooth[0] == (1.0, 1.0)
    assert smooth[-1] == (400.0, 0.5)
    assert len(smooth) == 400
    assert len(report.smoothed(points * 10)) <= 2 * report.MOST_POINTS


def test_a_foreign_directory_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    (tmp_path / "precious.txt").write_text("mine")
    assert cli.main(["demo", "--out", str(tmp_path), "--backend", "torch"]) == 2
    assert "holds something that is not a demo's" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    options = run.DemoOptions(out=tmp_path / "a" / "demo")
    run._make_room(options)
    (options.out / "old.txt").write_text("old")
    run._make_room(options)
    assert [p.name for p in options.out.iterdir()] == [run.MARKER]
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="not a demo's"):
        run._make_room(replace(options, out=tmp_path / "file"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seconds", "0"], "--seconds 0.0; expected a positive number"),
        (["--seconds", "nan"], "--seconds nan"),
        (["--backend", "troch"], "unknown backend 'troch'; did you mean 'torch'?"),
        (["--backend", "numpy"], "the numpy backend has no Trainer"),
    ],
)
def test_wrong_use_writes_nothing(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "--out", str(tmp_path / "demo"), *words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo with a handful of documents, a narrow model, a few steps, and one property of each kernel."""
    pytest.importorskip("torch")
    from griffin_core.demo import parts, training

    documents = tuple(Document(f"d{i}", f"Document number {i} says little. " * 8) for i in range(40))
    little = corpus.Corpus(corpus.EMBEDDED, documents)
    for module in (corpus, run):
        monkeypatch.setattr(module, "embedded_corpus", lambda: little)
    narrow = replace(
        training.DEMO.config, width=32, lru_width=32, mlp_width=64, num_layers=3, head_dim=8, attention_window=16
    )
    monkeypatch.setattr(training, "DEMO", replace(training.DEMO, config=narrow, batch=2, length=32))
    monkeypatch.setattr(parts, "judge", functools.partial(parts.judge, properties=["form"]))


def test_a_small_demo_from_end_to_end(small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    code = cli.main(["demo", "--out", str(out), "--seconds", "0.1", "--backend", "torch", "--json"])
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert code == 1, "twenty steps cannot beat xz, and the exit code says so"
    assert found == json.loads((out / "report.json").read_text())
    assert found["failures"] != []
    assert all("bits per byte on the held-out text" in failure for failure in found["failures"])
    assert found["passed"] is False
    assert found["seconds"] > 0
    assert found["training"]["steps"] == 20
    assert found["continuation"]["same"] is True
    assert found["continuation"]["before"] + found["continuation"]["after"] == found["continuation"]["in_one_go"]
    assert found["verification"]["passed"] is True
    assert found["conversion"]["bytes_after"] < found["conversion"]["bytes_before"]
    html = (out / "report.html").read_text()
    assert html.count("<svg") == 1
    assert "FAILED" in html
    assert {p.name for p in out.iterdir()} == {
        "demo.json", "run", "demo.state", "checkpoint-bf16", "report.html", "report.json",
    }  # fmt: skip


@pytest.mark.prove
def test_the_demo_beats_both_compressors(tmp_path: Path) -> None:
    """The real one, as ``make demo`` runs it."""
    command = [sys.executable, "-m", "griffin_core", "demo", "--out", str(tmp_path / "demo"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == 0, found["failures"]
    assert found["heldout_bits_per_byte"] < min(found["gzip_bits_per_byte"], found["xz_bits_per_byte"])
