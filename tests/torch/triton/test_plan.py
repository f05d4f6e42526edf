"""How calls are cut among the programs of a GPU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_core.errors import ConfigError, InputError
from griffin_core_torch.triton.plan import Plan, backward_plan, exact_hop, fixed, forward_plan, saved_rows

SHAPES = st.tuples(st.integers(1, 64), st.integers(1, 200_000), st.integers(1, 8192))


@given(SHAPES, st.sampled_from([2, 4]), st.booleans())
def test_tiles_cover_time_and_channels_once(shape: tuple[int, int, int], itemsize: int, marked: bool) -> None:
    states = saved_rows(itemsize, packed=marked)
    for plan in (forward_plan(shape, itemsize, marked=marked), backward_plan(shape, states)):
        tiles = plan.tiles(shape[1])
        assert plan.tokens * (tiles - 1) < shape[1] <= plan.tokens * tiles
        assert plan.programs(shape) == shape[0] * tiles * -(-shape[2] // plan.width)
        assert plan.segments <= 8
        assert plan.rows % states == 0  # a forward segment holds whole backward ones, whose states it saves


def test_the_carry_is_exact_where_that_costs_nothing() -> None:
    assert forward_plan((8, 8192, 2560), 2).carry == "exact"
    assert forward_plan((32, 2048, 1024), 2).carry == "exact"
    assert forward_plan((1, 131_072, 4096), 2).carry == "aggregate"
    assert forward_plan((1, 8192, 2560), 2).carry == "aggregate"
    assert forward_plan((8, 8192, 2560), 2, "given").carry == "given"
    assert exact_hop(32, 8) > exact_hop(32, 4) > exact_hop(16, 4)


def test_short_calls_take_small_tiles() -> None:
    assert forward_plan((4, 1, 2560), 2).tokens == 16
    assert backward_plan((4, 17, 2560), 16).tokens == 32


def test_a_fixed_plan_replaces_the_choice() -> None:
    small = Plan(4, 2, 16)
    with fixed(small):
        assert forward_plan((8, 8192, 2560), 2).tokens == 8
        assert forward_plan((8, 8192, 2560), 2, "exact").carry == "exact"
        assert backward_plan((8, 8192, 2560), 4).tokens == 8
    assert forward_plan((8, 8192, 2560), 2).tokens == 128


@pytest.mark.parametrize("shape", [(1, 0, 4), (2, 3), (0, 1, 1)])
def test_no_plan_of_nothing(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="each at least 1"):
        forward_plan(shape, 4)
    with pytest.raises(InputError, match="each at least 1"):
        backward_plan(shape, 16)


def test_sizes_are_powers_of_two() -> None:
    with pytest.raises(ConfigError, match="rows of a plan is 12; expected a power of two"):
        Plan(12, 2)
