"""Run properties on a subject and write down what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from hypothesis.strategies import SearchStrategy

from griffin_core.errors import ConfigError, nearest
from griffin_core.protocol import compiles_shapes, release_programs
from griffin_core.testing import search
from griffin_core.testing.properties import BY_NAME, GRADIENT, PACKED, PROPERTIES, Property
from griffin_core.testing.properties.gradients import no_gradient
from griffin_core.testing.report import FAILED, PASSED, SKIPPED, Record
from griffin_core.testing.search import JudgedError, Outcome, RefusedCase, Search
from griffin_core.testing.strategies import cases
from griffin_core.testing.subjects import Subject
from griffin_core.testing.tolerance import Ledger
from griffin_core.testing.trial import Trial


@dataclass(frozen=True)
class Effort:
    """How hard to look: the profile's draws and patience, the seed of every draw, whether large cases are drawn."""

    profile: str = "quick"
    seed: int = 0
    large: bool = True

    def count(self, share: float, module: ModuleType) -> int:
        """Draws of a property that takes this share of the profile's, on this backend."""
        return round(share * search.draws(self.profile, compiles_shapes(module)))

    def search(self, check: Callable[[Any], None], name: str) -> Search:
        """A search with this effort."""
        return Search(check, name, self.seed, search.SHRINK_SECONDS[self.profile])


def choose(names: Iterable[str] | None) -> tuple[Property, ...]:
    """The properties of these names (None: all).

    Raises:
        ConfigError: there is no such property.
    """
    if names is None:
        return PROPERTIES
    for name in names:
        if name not in BY_NAME:
            raise ConfigError(f"unknown property {name!r}; {nearest(name, BY_NAME)}")
    return tuple(BY_NAME[name] for name in names)


def judge_subject(subject: Subject, effort: Effort, names: Iterable[str] | None = None) -> list[Record]:
    """One record for each property that applies to the subject's operation."""
    return [judge_property(subject, item, effort) for item in choose(names) if item.applies(subject.op)]


def judge_property(subject: Subject, item: Property, effort: Effort) -> Record:
    """Search for a case where the property does not hold."""
    begun, ledger = time.monotonic(), Ledger()
    record = Record(subject=subject.label, property=item.name, about=item.about, status=SKIPPED)
    try:
        reason = _cannot(subject, item)
    except JudgedError as error:  # the probe itself is a case: report it as the property's failure
        outcome = Outcome(ran=1, case=item.cases[0], failure=error)
    else:
        if reason is not None:
            return replace(record, reason=reason)
        run = effort.search(lambda case: item.check(Trial(subject, case, ledger)), f"{subject.op.name}/{item.name}")
        drawn = cases(item.long and effort.large, effort.large)
        outcome = run.run(item.cases, drawn, effort.count(item.drawn, subject.arrays))
    release_programs(subject.arrays)
    record = filled(record, outcome, ledger, time.monotonic() - begun)
    return replace(record, reproduce=reproduction(subject, item.name, outcome.case)) if outcome.failure else record


def filled(record: Record, outcome: Outcome, ledger: Ledger, seconds: float) -> Record:
    """The record with a search's outcome."""
    record = replace(
        record,
        cases=outcome.ran,
        refused=outcome.refused,
        ratio=ledger.ratio,
        error=ledger.error,
        bound=ledger.bound,
        where=ledger.where,
        ambiguous=ledger.ambiguous,
        seconds=seconds,
    )
    if outcome.failure is not None:
        return replace(record, status=FAILED, reason=str(outcome.failure), case=repr(outcome.case))
    if outcome.ran:
        return replace(record, status=PASSED)
    return replace(record, reason="every case was refused: " + "; ".join(outcome.refused))


def _cannot(subject: Subject, item: Property) -> str | None:
    """Why a property cannot be asked of this subject."""
    if item.needs == PACKED and subject.packed is None:
        return "it takes no `starts`: packed rows are split by the backend's operation"
    if item.needs != GRADIENT:
        return None
    try:
        return no_gradient(subject)
    except RefusedCase as refusal:
        return f"the kernel refuses gradients: {refusal}"


def reproduction(subject: Subject, name: str, case: Any) -> str:
    """Code that runs the property on the failing case again."""
    known = bool(subject.target)
    lines = [
        f"from griffin_core.testing import {type(case).__name__}, replay",
        "",
        *([] if known else [f"# `judged` is the object that was judged ({subject.label}); it has no importable name"]),
        f"target = {subject.target if known else 'judged'}",
        f"case = {case!r}",
        f'replay(target, "{name}", case, op="{subject.op.name}", backend="{subject.backend}")',
    ]
    return "\n".join(lines)


def search_laws(
    check: Callable[[Any], None],
    name: str,
    corners: Sequence[Any],
    strategy: SearchStrategy[Any],
    effort: Effort,
    count: int,
) -> Outcome:
    """A search over another kind of case (whole models)."""
    return effort.search(check, name).run(corners, strategy, count)
