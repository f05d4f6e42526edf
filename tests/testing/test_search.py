"""The search: deterministic, shrinks to the simplest failing case, tells the judged fault from its own."""

from __future__ import annotations

import numpy as np
import pytest

from griffin_core.errors import ConfigError
from griffin_core.testing.cases import CORNERS, Case
from griffin_core.testing.search import DRAWS, JudgedError, RefusedCase, Search, draws
from griffin_core.testing.strategies import cases


def seen(seed: int, count: int = 25) -> list[Case]:
    found: list[Case] = []
    Search(found.append, "a name", seed).run((), cases(), count)
    return found


def test_small_cases_alone_can_be_drawn() -> None:
    small: list[Case] = []
    all_: list[Case] = []
    Search(small.append, "a name").run((), cases(long=False, wide=False), 200)
    Search(all_.append, "a name").run((), cases(), 200)
    assert max(case.t for case in small) <= 65 < max(case.t for case in all_)
    assert max(case.d for case in small) <= 31 < max(case.d for case in all_)


def test_equal_seeds_draw_equal_cases() -> None:
    assert seen(1) == seen(1)
    assert seen(1) != seen(2)
    assert len(seen(1)) == 25


def test_draws_reach_every_kind() -> None:
    found = seen(0, 300)
    assert {case.dtype for case in found} == {"float32", "bfloat16", "float16"}
    assert {case.decay for case in found} >= {"one", "zero", "subnormal", "mixed", "1e-6"}
    assert {case.resets for case in found} == {"none", "start", "every", "edges", "random"}
    assert max(case.t for case in found) > 256
    assert min(case.t for case in found) == 1


@pytest.mark.parametrize("corners", [(), CORNERS])
def test_a_failure_is_shrunk_field_by_field(corners: tuple[Case, ...]) -> None:
    def check(case: Case) -> None:
        assert not (case.t > 12 and case.carry and case.d > 2)

    outcome = Search(check, "a name", shrink_seconds=60.0).run(corners, cases(), 200)
    assert outcome.case == Case(t=13, d=3, carry=True)
    assert isinstance(outcome.failure, AssertionError)


def test_an_exception_of_the_judged_function_is_a_failure() -> None:
    def check(case: Case) -> None:
        if case.b > 1:
            raise JudgedError("it raised ValueError")

    outcome = Search(check, "a name").run((), cases(), 50)
    assert outcome.case == Case(b=2)
    assert isinstance(outcome.failure, JudgedError)


def test_the_kits_own_faults_are_not_failures() -> None:
    def check(case: Case) -> None:
        raise KeyError("a bug in a property")

    with pytest.raises(KeyError):
        Search(check, "a name").run(CORNERS, cases(), 5)
    with pytest.raises(KeyError):
        Search(check, "a name").run((), cases(), 5)


def test_refused_cases_are_counted_with_their_reason() -> None:
    def check(case: Case) -> None:
        if case.t % 2:
            raise RefusedCase("t is odd")

    outcome = Search(check, "a name").run(CORNERS, cases(), 20)
    assert outcome.failure is None
    assert outcome.refused["t is odd"] + outcome.ran == len(CORNERS) + 20
    assert outcome.ran > 5


def test_a_failure_that_comes_and_goes_is_still_a_failure() -> None:
    coin = np.random.default_rng(0)

    def check(case: Case) -> None:
        assert coin.random() < 0.9

    assert Search(check, "a name").run((), cases(), 100).failure is not None


def test_profiles_are_named() -> None:
    assert draws("quick") < draws("ci") < draws("thorough") == DRAWS["thorough"]
    with pytest.raises(ConfigError, match="did you mean 'quick'"):
        draws("quik")
