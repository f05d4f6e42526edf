"""Compiled programs are dropped before a process has too many of them, and not earlier."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

import griffin_core_jax as backend
from griffin_core.testing import judge
from griffin_core_jax import programs


@pytest.fixture
def traced() -> list[int]:
    """Grows whenever the function below is traced."""
    return []


@pytest.mark.parametrize(("most", "times"), [(10, 2), (10**9, 1)])
def test_they_are_dropped_at_half_of_the_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, traced: list[int], most: int, times: int
) -> None:
    limit = tmp_path / "most"
    limit.write_text(f"{most}\n")
    monkeypatch.setattr(programs, "_MOST", limit)

    @jax.jit
    def f(x: jax.Array) -> jax.Array:
        traced.append(1)
        return x + 1

    f(jax.numpy.ones(3))
    assert programs.release_programs() == (times == 2)
    f(jax.numpy.ones(3))
    assert len(traced) == times


def test_nothing_happens_where_the_system_has_no_such_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "_MOST", tmp_path / "absent")
    assert not programs.release_programs()


@pytest.mark.parametrize("names", [("empty", "form"), ("model.weights", "model.form")])
def test_the_kit_asks_after_each_property(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    asked: list[int] = []
    monkeypatch.setattr(backend, "release_programs", lambda: asked.append(1))
    op = None if names[0].startswith("model") else "linear_scan"
    report = judge(None, op=op, backend="jax", properties=names)
    assert report.passed, str(report)
    assert 0 < len(asked) == len(report.records)
