"""Whole groups of cases at once: undamaged sources that are built once, and what is wrong by case."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.checkpoints.corruption.cases import Case, Facts, attempt, facts
from tests.checkpoints.corruption.groups import cases
from tests.checkpoints.corruption.sources import SOURCES


class Homes:
    """Undamaged sources, each built when it is first asked for."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._facts: dict[str, Facts] = {}

    def home(self, name: str) -> Path:
        """The directory of a source."""
        if name not in self._facts:
            (self._place / name).mkdir()
            SOURCES[name].build(self._place / name)
            self._facts[name] = facts(SOURCES[name], self._place / name)
        return self._place / name

    def facts(self, name: str) -> Facts:
        """What it holds."""
        self.home(name)
        return self._facts[name]


def judged(
    source: str,
    group: str,
    homes: Homes,
    place: Path,
    times: int = 0,
    only: Callable[[Case], bool] = lambda case: True,
) -> dict[str, str]:
    """Run the cases of a group on a source: what is wrong, by the case's label."""
    home, known = homes.home(source), homes.facts(source)
    wrong = {}
    for case in filter(only, cases(source, group, home, times)):
        try:
            attempt(SOURCES[source], case, home, place / "case", known)
        except (AssertionError, MemoryError) as error:
            wrong[case.label] = f"{type(error).__name__}: {error}"
        for left in (place / "case", place / "case-out"):
            shutil.rmtree(left, ignore_errors=True)
    return wrong
