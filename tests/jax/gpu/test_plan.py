"""How calls are cut among the programs of a GPU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_core.errors import ConfigError, InputError
from griffin_core_jax.gpu.plan import LEAST_TILES, SCHEDULERS, WORK, Plan, modelled_time, plan

KEYS = st.sampled_from(sorted(WORK))
SHAPES = st.tuples(st.integers(1, 64), st.integers(1, 200_000), st.integers(1, 8192))


@given(KEYS, SHAPES, st.sampled_from([2, 4]))
def test_every_call_is_covered_once(key: tuple[str, str], shape: tuple[int, int, int], itemsize: int) -> None:
    """Stretches reach the end of time, none lies beyond it, and none is too short to be worth cutting."""
    found = plan(*key, shape, itemsize)
    batch, time, width = shape
    assert found.tokens * (found.stretches - 1) < time <= found.tokens * found.stretches
    assert found.grid(shape) == (-(-width // found.width), found.stretches, batch)
    assert found.stretches == 1 or found.tiles >= LEAST_TILES
    assert found.rows <= WORK[key].rows
    assert WORK[key[0], "forward"].rows % WORK[key[0], "backward"].rows == 0


@given(KEYS, SHAPES, st.sampled_from([2, 4]))
def test_whole_is_a_choice_and_no_better_one(key: tuple[str, str], shape: tuple[int, int, int], itemsize: int) -> None:
    found = plan(*key, shape, itemsize)
    whole = Plan(found.rows, -(-shape[1] // found.rows), 1)
    best, other = (modelled_time(WORK[key], p, shape, itemsize) for p in (found, whole))
    assert best <= other
    assert best < other or found == whole


@pytest.mark.parametrize("key", sorted(WORK), ids=" ".join)
def test_time_is_cut_where_channels_are_few(key: tuple[str, str]) -> None:
    """A wide batch touches everything once; one long row fills the GPU; one token is one tile."""
    assert plan(*key, (64, 8192, 2560), 2).stretches == 1
    long = plan(*key, (1, 131072, 2560), 2)
    assert 2560 // long.width * long.stretches >= SCHEDULERS // 2
    assert plan(*key, (8, 1, 2560), 2) == Plan(1, 1, 1)
    assert plan(*key, (1, 100, 64), 4).stretches == 1


def test_cutting_time_is_never_free() -> None:
    """Inputs that are read again, and two more launches."""
    work, shape = WORK["gated_scan", "forward"], (64, 8192, 2560)
    whole, cut = (modelled_time(work, Plan(16, 512 // n, n), shape, 2) for n in (1, 4))
    assert cut > 1.5 * whole


@pytest.mark.parametrize("shape", [(1, 0, 4), (2, 3), (0, 1, 1)])
def test_no_plan_of_nothing(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="each at least 1"):
        plan("linear_scan", "forward", shape, 4)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="no kernel 'conv1d' 'forward'"):
        plan("conv1d", "forward", (1, 1, 1), 4)
    with pytest.raises(ConfigError, match="rows is 3; expected a power of two"):
        Plan(3, 1, 1)
    with pytest.raises(ConfigError, match="0 tiles in 1 stretches"):
        Plan(4, 0, 1)
