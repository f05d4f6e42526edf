"""Two bits a row: what is packed, what is read back, and the switch to interpretation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from griffin_core.errors import ConfigError
from griffin_core_jax.tpu import chips, marks
from griffin_core_jax.tpu.interpret import interpret, interpreting, mode
from griffin_core_jax.tpu.tiling import GROUP, Tiling, fixed


def _tiles(time: int) -> Tiling:
    return fixed("linear_scan", "forward", (2, time, 128), "float32", chips.SMALLEST, 32, 128)


@pytest.mark.parametrize("time", [1, 16, 35, 64])
@pytest.mark.parametrize("given", [(True, True), (True, False), (False, True), (False, False)])
def test_every_row_is_read_back(time: int, given: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(time)
    reset, skip = (rng.random((2, time)) < 0.4 if present else None for present in given)
    tiles = _tiles(time)
    packed = marks.pack(
        None if reset is None else jnp.asarray(reset), None if skip is None else jnp.asarray(skip), 2, time, tiles
    )
    blocks = -(-time // 32)
    assert packed.shape == (2 * blocks, 1, 2)
    assert packed.dtype == jnp.int32
    late = np.ones((2, blocks * 32), bool)
    late[:, :time] = False
    expected = [late & False, late.copy()]
    for rows, place in ((reset, 0), (skip, 1)):
        if rows is not None:
            expected[place][:, :time] |= rows
    groups = [marks.masks(bits) for bits in packed.ravel()]
    for place in (0, 1):
        found = np.concatenate([np.asarray(group[place])[:, 0] for group in groups]).reshape(2, -1)
        np.testing.assert_array_equal(found, expected[place])
    assert len(groups) * GROUP == 2 * blocks * 32


def test_no_mark_is_zero() -> None:
    packed = marks.pack(None, None, 2, 64, _tiles(64))
    assert not np.asarray(packed).any()


def test_the_mode_is_part_of_jits_key() -> None:
    seen = []

    @jax.jit
    def trace(x: jax.Array) -> jax.Array:
        seen.append((mode(), interpret() is True, bool(interpret())))
        return x

    for name in ("plain", "random", "off", "plain"):
        with interpreting(name):
            trace(jnp.zeros(1))
    trace(jnp.zeros(1))
    assert seen == [("plain", True, True), ("random", False, True), ("off", False, False)]
    with pytest.raises(ConfigError, match="unknown interpretation 'plane'; did you mean 'plain'"):
        interpreting("plane")
