"""Interleaved timing: every contender runs once per round, so that a slow minute slows all of them.

A ratio is the median of the rounds' own ratios, never a ratio of two medians: within one round the machine is
the same for both.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from griffin_core.errors import InputError

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Something to time.

    Attributes:
        name: its row.
        call: does the work once, and returns when it is done.
        per: units of work in one call (decoded tokens), by which times are divided.
        limit: once its rounds have taken so many seconds in all, it sits the later ones out; the first call, in which
            programs are compiled, is not among them.
    """

    name: str
    call: Callable[[], object]
    per: int = 1
    limit: float = math.inf


@dataclass(frozen=True)
class Timing:
    """Seconds per unit of work: the first call's (never counted) and each round's."""

    name: str
    first: float
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round, in seconds."""
        return statistics.median(self.rounds)


@dataclass(frozen=True)
class Ratio:
    """Quotients of two timings, round by round: the median, the lowest and the highest."""

    median: float
    low: float
    high: float


def interleave(
    contenders: Sequence[Contender],
    runs: int,
    clock: Clock = time.perf_counter,
    told: Callable[[str], None] | None = None,
) -> dict[str, Timing]:
    """Time every contender ``runs`` times, in turn: A B C A B C ...; one call each comes first, as warm-up.

    Args:
        runs: rounds.
        clock: seconds.
        told: is given a line before each round.

    Raises:
        InputError: ``runs`` is not positive, or two contenders have one name.
    """
    if runs < 1:
        raise InputError(f"runs={runs}; expected at least 1")
    names = [contender.name for contender in contenders]
    if len(set(names)) != len(names):
        raise InputError(f"contenders are named {', '.join(names)}; each name must be its own")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with _collector_paused():
        for turn in range(runs + 1):
            if told is not None:
                told("warm-up" if turn == 0 else f"round {turn} of {runs}")
            for contender in contenders:
                if sum(seconds[contender.name][1:]) * contender.per < contender.limit:
                    seconds[contender.name].append(_timed(contender, clock))
    return {name: Timing(name, taken[0], tuple(taken[1:])) for name, taken in seconds.items()}


def ratio(numerator: Timing, denominator: Timing) -> Ratio:
    """Quotients of the rounds that both ran."""
    quotients = [a / b for a, b in zip(numerator.rounds, denominator.rounds, strict=False)]
    return Ratio(statistics.median(quotients), min(quotients), max(quotients))


def _timed(contender: Contender, clock: Clock) -> float:
    start = clock()
    contender.call()
    return (clock() - start) / contender.per


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No cyclic garbage collection inside a timed call."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
