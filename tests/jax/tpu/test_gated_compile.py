"""gated_scan compiles for every generation at real sizes, with nothing around the kernels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from griffin_core_jax.aot import compile_for, layout_copies, memory
from griffin_core_jax.tpu import chips
from griffin_core_jax.tpu.gated_scan import gated_scan

SIZES = [(8, 8192, 2560), (1, 131072, 4096), (8, 8192, 5120)]


def step(
    x: jax.Array, gate_x: jax.Array, gate_a: jax.Array, param: jax.Array, h0: jax.Array, positions: jax.Array
) -> tuple[jax.Array, ...]:
    """Outputs, and gradients for cotangents that are the outputs."""
    outputs, pull = jax.vjp(lambda *given: gated_scan(*given, positions), x, gate_x, gate_a, param, h0)
    return *outputs, *pull(outputs)


def arguments(shape: tuple[int, int, int], dtype: str) -> tuple[jax.ShapeDtypeStruct, ...]:
    struct = jax.ShapeDtypeStruct
    batch, time, width = shape
    x, wide = struct(shape, jnp.dtype(dtype)), jnp.float32
    return x, x, x, struct((width,), wide), struct((batch, width), wide), struct((batch, time), jnp.int32)


@pytest.mark.usefixtures("libtpu")
def test_a_narrow_ragged_call_compiles() -> None:
    compiled = compile_for(step, arguments((2, 77, 200), "bfloat16"), "v5e")
    assert compiled.as_text().count("tpu_custom_call") >= 2


@pytest.mark.prove
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("name", chips.CHIPS)
def test_real_sizes_compile_without_copies(name: str, shape: tuple[int, int, int], dtype: str) -> None:
    compiled = compile_for(step, arguments(shape, dtype), name)
    assert layout_copies(compiled) == ()
    states = 4 * shape[0] * shape[1] * shape[2] // 32  # one float32 row for each time block of 32 rows or more
    assert memory(compiled).temporaries <= states + 2**25
