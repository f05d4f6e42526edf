"""Interleaving and ratios, on a clock that the test winds."""

from __future__ import annotations

import gc
import itertools

import pytest

from griffin_core.benchmarks.pairing import Contender, Ratio, Timing, interleave, ratio
from griffin_core.errors import InputError


class Bench:
    """A clock, and calls that move it by scripted seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def call(self, name: str, seconds: list[float]):
        script = itertools.chain(seconds, itertools.repeat(seconds[-1]))

        def run() -> None:
            self.order.append(name)
            self.now += next(script)

        return run

    def clock(self) -> float:
        return self.now


def test_contenders_take_turns_and_the_first_call_does_not_count() -> None:
    bench = Bench()
    a = Contender(name="a", call=bench.call("a", [9.0, 1.0, 3.0, 2.0]))
    b = Contender(name="b", call=bench.call("b", [4.0, 4.0]))
    timings = interleave([a, b], runs=3, clock=bench.clock)
    assert bench.order == ["a", "b"] * 4
    assert timings["a"] == Timing("a", 9.0, (1.0, 3.0, 2.0))
    assert timings["a"].median == 2.0


def test_a_slow_spell_moves_both_times_and_not_the_ratio() -> None:
    bench = Bench()
    a = Contender(name="a", call=bench.call("a", [1.5, 1.5, 6.0, 6.0, 6.0, 1.5]))
    b = Contender(name="b", call=bench.call("b", [1.0, 1.0, 4.0, 4.0, 4.0, 1.0]))
    timings = interleave([a, b], runs=5, clock=bench.clock)
    assert ratio(timings["a"], timings["b"]) == Ratio(1.5, 1.5, 1.5)


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    a, b = Timing("a", 0.0, (1.0, 8.0, 3.0)), Timing("b", 0.0, (1.0, 2.0, 2.0))
    assert ratio(a, b) == Ratio(1.5, 1.0, 4.0)


def test_times_are_divided_by_the_units_of_a_call() -> None:
    bench = Bench()
    timings = interleave([Contender(name="a", call=bench.call("a", [8.0]), per=4)], runs=2, clock=bench.clock)
    assert timings["a"] == Timing("a", 2.0, (2.0, 2.0))


def test_a_slow_peer_sits_out_and_its_rounds_are_still_compared_with_the_same_rounds() -> None:
    bench = Bench()
    ours = Contender(name="ours", call=bench.call("ours", [1.0, 1.0, 5.0, 5.0]))
    peer = Contender(name="peer", call=bench.call("peer", [100.0, 50.0, 1.0]), limit=45.0)
    timings = interleave([ours, peer], runs=3, clock=bench.clock)
    assert timings["peer"].rounds == (50.0,)
    assert ratio(timings["peer"], timings["ours"]).median == 50.0


def test_a_first_call_that_compiles_for_long_is_not_a_round() -> None:
    bench = Bench()
    peer = Contender(name="peer", call=bench.call("peer", [170.0, 17.0, 16.0]), limit=60.0)
    assert interleave([peer], runs=2, clock=bench.clock)["peer"] == Timing("peer", 170.0, (17.0, 16.0))


def test_garbage_is_not_collected_inside_a_call() -> None:
    seen = []
    interleave([Contender(name="a", call=lambda: seen.append(gc.isenabled()))], runs=1)
    assert seen == [False, False]
    assert gc.isenabled()


def test_illegal_plans_are_refused() -> None:
    a = Contender(name="a", call=lambda: None)
    with pytest.raises(InputError, match="runs=0"):
        interleave([a], runs=0)
    with pytest.raises(InputError, match="each name must be its own"):
        interleave([a, a], runs=1)
