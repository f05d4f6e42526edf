"""The plan of blocks: it covers every shape, fits every generation, and what it plans compiles."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_core.errors import BackendError, ConfigError, InputError
from griffin_core_jax.aot import compile_for
from griffin_core_jax.tpu import chips
from griffin_core_jax.tpu.kernels import KERNELS
from griffin_core_jax.tpu.tiling import GROUP, LANES, MODEST, RESERVE, TRAFFIC, Tiling, Traffic, fixed, tiling

SHAPES = st.tuples(st.integers(1, 64), st.integers(1, 200_000), st.integers(1, 20_000))
WIDTHS = (1, 100, 127, 192, 2560, 4096, 5120)
TIMES = (1, 7, 8192, 8191)


@pytest.mark.parametrize("name", chips.CHIPS)
@pytest.mark.parametrize("key", TRAFFIC, ids="-".join)
@given(shape=SHAPES, dtype=st.sampled_from(["float32", "bfloat16"]))
def test_every_shape_has_blocks_that_fit(
    name: str, key: tuple[str, str], shape: tuple[int, int, int], dtype: str
) -> None:
    row = chips.CHIPS[name]
    found = tiling(*key, shape, dtype, row)
    batch, time, width = shape
    for blocks, block, length in zip(
        found.grid, (1, found.block_width, found.block_time), (batch, width, time), strict=True
    ):
        assert (blocks - 1) * block < length <= blocks * block
    assert found.block_width % LANES == 0
    assert found.block_time % GROUP == 0
    itemsize = jnp.dtype(dtype).itemsize
    assert found.vmem_bytes == TRAFFIC[key].vmem_bytes(found.block_time, found.block_width, itemsize)
    limit = row.vmem_default if found.vmem_limit is None else found.vmem_limit
    assert limit <= row.vmem_limit
    assert found.vmem_bytes + RESERVE <= limit
    assert found.vmem_bytes <= MODEST


def test_vmem_is_counted_by_hand() -> None:
    # 2 buffers of (3 bfloat16 + 1 float32) blocks 32 x 128, 2 of 2 rows padded to 8, one group, one block, the carry
    traffic = Traffic(stored=3, wide=1, vectors=2, group_scratch=1, block_scratch=1)
    by_hand = 2 * (3 * 2 + 4) * 32 * 128 + 2 * 2 * 8 * 4 * 128 + 4 * 16 * 128 + 4 * 32 * 128 + 4 * 8 * 128
    assert traffic.vmem_bytes(32, 128, 2) == by_hand
    assert traffic.moved_bytes(32, 128, 2) == 10 * 32 * 128


def test_wide_blocks_are_taken_at_training_shapes() -> None:
    """A narrow block waits for its one chain of states; a block of the whole width takes half the bundles."""
    for row in chips.CHIPS.values():
        found = tiling("linear_scan", "forward", (8, 8192, 2560), "bfloat16", row)
        assert found.block_width == 2560
        assert found.block_time >= 256


def test_two_cores_get_two_tiles() -> None:
    v5p = chips.CHIPS["v5p"]
    assert v5p.cores == 2
    found = tiling("linear_scan", "forward", (1, 2048, 2560), "bfloat16", v5p)
    assert found.grid[0] * found.grid[1] % 2 == 0


def test_refusals() -> None:
    v4 = chips.CHIPS["v4"]
    with pytest.raises(ConfigError, match="no kernel 'linear_scam' 'forward'; did you mean 'linear_scan forward'"):
        tiling("linear_scam", "forward", (1, 1, 1), "float32", v4)
    with pytest.raises(InputError, match=r"shape \(1, 0, 4\)"):
        tiling("linear_scan", "forward", (1, 0, 4), "float32", v4)
    with pytest.raises(ConfigError, match="block_time is 24"):
        fixed("linear_scan", "forward", (1, 48, 128), "float32", v4, 24, 128)
    with pytest.raises(ConfigError, match="block_width is 100"):
        Tiling(16, 100, (1, 1, 1), 0, None)
    with pytest.raises(BackendError, match="unknown TPU generation 'v5'"):
        chips.chip("v5")


def test_the_chip_is_found_by_kind_and_by_target() -> None:
    assert chips.chip_of("TPU v5 lite") is chips.CHIPS["v5e"]
    assert chips.chip_of("TPU v5") is chips.CHIPS["v5p"]
    assert chips.chip_of("TPU v2") is None
    seen = []

    @jax.jit
    def trace(x: jax.Array) -> jax.Array:
        seen.append(chips.current().name)
        return x

    for name in ("v6e", "v5e"):
        with chips.targeting(chips.CHIPS[name]):
            trace(jnp.zeros(1))
    trace(jnp.zeros(1))
    assert seen == ["v6e", "v5e", chips.SMALLEST.name]  # the target is part of jit's cache key


def _compile(op: str, shape: tuple[int, int, int], dtype: str, name: str) -> None:
    """Value and gradient of an operation's kernel; VMEM overflow and anything that Mosaic refuses raise."""
    x = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    h0 = jax.ShapeDtypeStruct(shape[::2], jnp.float32)
    record = next(kernel for kernel in KERNELS if kernel.op == op)

    def scan(x: jax.Array, h0: jax.Array, reset: jax.Array) -> tuple[jax.Array, ...]:
        (y, h), pull = jax.vjp(lambda *given: record.forward(*given, reset), x, x, h0)
        return y, h, *pull((y, h))

    compile_for(scan, (x, h0, jax.ShapeDtypeStruct(shape[:2], jnp.bool)), name)


QUICK = [
    ("v4", 8191, 5120, "float32"),
    ("v5e", 8191, 4096, "float32"),
    ("v5e", 7, 127, "bfloat16"),
    ("v5p", 8191, 192, "bfloat16"),
    ("v6e", 1, 1, "bfloat16"),
    ("tpu7x", 8192, 100, "float32"),
]


@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize(("name", "time", "width", "dtype"), QUICK)
def test_plans_compile(name: str, time: int, width: int, dtype: str) -> None:
    _compile("linear_scan", (2, time, width), dtype, name)


@pytest.mark.prove
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize(("name", "dtype"), [*((name, "bfloat16") for name in chips.CHIPS), ("v5e", "float32")])
def test_awkward_plans_compile(name: str, dtype: str) -> None:
    for time, width in itertools.product(TIMES, WIDTHS):
        _compile("linear_scan", (2, time, width), dtype, name)
