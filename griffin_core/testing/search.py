"""Try a property on fixed corners, then on drawn cases; when one fails, shrink it. Deterministic for a seed."""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import FlakyFailure
from hypothesis.strategies import SearchStrategy

from griffin_core.errors import ConfigError, nearest

DRAWS = {"quick": 6, "ci": 25, "thorough": 100}
"""Cases that each property draws, by profile, after its corners."""
COMPILED_DRAWS = {"quick": 2, "ci": 4, "thorough": 5}
"""The same for a backend that compiles a program for every shape (``protocol.compiles_shapes``): a case costs it a
tenth of a second, a model's a second and more. The corners are the same for all."""
SHRINK_SECONDS = {"quick": 5.0, "ci": 10.0, "thorough": 60.0}


class JudgedError(Exception):
    """What is judged raised an exception, or returned something that is not its outputs."""


class RefusedCase(Exception):
    """The kernel's ``supports`` gave a reason not to run this case."""


Failure = AssertionError | JudgedError


@dataclass
class Outcome:
    """What came of a search.

    Attributes:
        ran: cases that were judged.
        refused: cases that the kernel refused, by reason.
        case, failure: the shrunk failing case and what it raised.
    """

    ran: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    case: Any = None
    failure: Failure | None = None


def draws(profile: str, compiled: bool = False) -> int:
    """How many cases a profile draws; ``compiled``: for a backend that compiles a program for every shape.

    Raises:
        ConfigError: there is no such profile.
    """
    if profile not in DRAWS:
        raise ConfigError(f"unknown profile {profile!r}; {nearest(profile, DRAWS)}")
    return (COMPILED_DRAWS if compiled else DRAWS)[profile]


@dataclass
class Search:
    """One property on many cases.

    Args:
        check: raises a ``Failure`` when the property does not hold, ``RefusedCase`` when it cannot be asked.
        name: of the property and what is judged; with ``seed`` it fixes the draws.
    """

    check: Callable[[Any], None]
    name: str
    seed: int = 0
    shrink_seconds: float = SHRINK_SECONDS["quick"]
    outcome: Outcome = field(default_factory=Outcome)
    deadline: float = float("inf")

    def run(self, corners: Sequence[Any], strategy: SearchStrategy[Any] | None, count: int) -> Outcome:
        """Corners first, then ``count`` draws; stop at the first failure and shrink it."""
        if not any(self._fails(case) for case in corners) and strategy is not None and count:
            self._draw(strategy, count)
        if self.outcome.failure is not None:
            self._simplify()
        return self.outcome

    def _fails(self, case: Any) -> bool:
        """Judge one case; keep it when it fails."""
        try:
            self.check(case)
        except (AssertionError, JudgedError) as failure:
            if self.outcome.failure is None:
                self.deadline = time.monotonic() + self.shrink_seconds
            self.outcome.case, self.outcome.failure = case, failure
            return True
        except RefusedCase as refusal:
            self.outcome.refused[str(refusal)] = self.outcome.refused.get(str(refusal), 0) + 1
            return False
        if self.outcome.failure is None:
            self.outcome.ran += 1
        return False

    def _draw(self, strategy: SearchStrategy[Any], count: int) -> None:
        """Hypothesis draws and shrinks; past the deadline only the failing case at hand still counts."""

        def one(case: Any) -> None:
            found = self.outcome
            if time.monotonic() > self.deadline:
                if case == found.case and found.failure is not None:
                    raise found.failure
            elif self._fails(case) and found.failure is not None:
                raise found.failure

        quiet = settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
            report_multiple_bugs=False,
            print_blob=False,
        )
        number = zlib.crc32(f"{self.name}/{self.seed}".encode())
        try:
            seeded(number)(quiet(given(strategy)(one)))()
        except (AssertionError, JudgedError, FlakyFailure) as failure:
            if self.outcome.failure is None:  # not one of ours: the kit's own fault
                raise failure

    def _simplify(self) -> None:
        """Bring every field as near to its default as the failure allows."""
        changed = True
        while changed:
            changed = False
            for name in [f.name for f in dataclasses.fields(self.outcome.case)]:
                for value in _simpler(self.outcome.case, name):
                    if time.monotonic() > self.deadline:
                        return
                    if self._fails(self.outcome.case.replace(**{name: value})):
                        changed = True
                        break


def _simpler(case: Any, name: str) -> list[Any]:
    """Values to try for one field, simplest first."""
    now, default = getattr(case, name), type(case).__dataclass_fields__[name].default
    if now == default:
        return []
    if not isinstance(now, int) or isinstance(now, bool):
        return [default]
    return sorted({default, now // 2, now - 1} - {now}, key=lambda value: abs(value - default))
