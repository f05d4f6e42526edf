"""Copies around kernels are found, and ours have none."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from griffin_core_jax.aot import compile_for, layout_copies, memory, topology_devices
from griffin_core_jax.aot.layouts import Copy, copies_in
from griffin_core_jax.aot.programs import programs
from griffin_core_jax.tpu import chips
from griffin_core_jax.tpu.linear_scan import linear_scan

SHAPE = (2, 8192, 2560)
LARGE = 2**20
COLLECTIVE = re.compile(r"= \S+ (all-\w+|collective-\w+|reduce-scatter)")

TEXT = """
  %x.1 = f32[2,8192,2560]{2,1,0:T(8,128)} parameter(0)
  %copy-start = (f32[2,8192,2560]{2,1,0:T(8,128)S(1)}, f32[2,8192,2560]{2,1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x.1)
  %copy-done = f32[2,8192,2560]{2,1,0:T(8,128)S(1)} copy-done(%copy-start)
  %copy.1 = f32[2,8192,2560]{1,2,0:T(8,128)} copy(%copy-done), metadata={}
  %small = f32[2,8]{0,1} transpose(%y), dimensions={1,0}
  ROOT %transpose.2 = bf16[8192,2,2560]{2,1,0} transpose(%copy.1), dimensions={1,0,2}
"""


def test_copies_are_read_and_prefetches_passed_over() -> None:
    found = copies_in(TEXT, LARGE)
    assert found == (
        Copy("copy", (2, 8192, 2560), "f32", "2,1,0:T(8,128)S(1)", "1,2,0:T(8,128)"),
        Copy("transpose", (8192, 2, 2560), "bf16", "1,2,0:T(8,128)", "2,1,0"),
    )
    assert found[0].elements == 2 * 8192 * 2560
    assert len(copies_in(TEXT, 16)) == 3


def _double(x_ref, y_ref) -> None:
    y_ref[...] = 2 * x_ref[...]


def _native(x: jax.Array) -> jax.Array:
    block = pl.BlockSpec((1, 256, 1280), lambda b, t, w: (b, t, w))
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return pl.pallas_call(_double, grid=(2, 32, 2), in_specs=[block], out_specs=block, out_shape=shape)(x)


def _viewed(x: jax.Array) -> jax.Array:
    """The same on [b t d/128 128], the view of the family's only other TPU kernel."""
    view = x.reshape(*x.shape[:2], -1, 128)
    block = pl.BlockSpec((1, 64, 20, 128), lambda b, t: (b, t, 0, 0))
    shape = jax.ShapeDtypeStruct(view.shape, view.dtype)
    doubled = pl.pallas_call(_double, grid=(2, 128), in_specs=[block], out_specs=block, out_shape=shape)(view)
    return doubled.reshape(x.shape)


@pytest.mark.usefixtures("libtpu")
def test_a_planted_view_is_found() -> None:
    x = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    assert layout_copies(compile_for(_native, (x,), "v5e")) == ()
    found = layout_copies(compile_for(_viewed, (x,), "v5e"))
    assert len(found) >= 2
    assert {copy.elements for copy in found} == {2 * 8192 * 2560}


@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("name", chips.CHIPS)
def test_linear_scan_has_no_layout_copies(name: str) -> None:
    """Forward and backward in one program, at real sizes, on every generation (this libtpu exports HLO for all).

    ``test_bundles`` looks at every other kernel on one of them, and ``make prove`` at all on all.
    """
    for program in programs(SHAPE):
        if program.key == "linear_scan/pallas/backward/bfloat16/marked":
            compiled = compile_for(*program.build(), name)
            assert compiled.as_text().count("tpu_custom_call") >= 2
            assert layout_copies(compiled) == (), program.key
            # beside small things only y, which the forward kernel writes though nobody asked for it here
            assert memory(compiled).temporaries < 1.1 * 2 * SHAPE[0] * SHAPE[1] * SHAPE[2], program.key


@pytest.mark.usefixtures("libtpu")
def test_a_split_scan_needs_no_communication() -> None:
    """Batch and width over four devices, value and gradient: two kernels, no collective, no copy."""
    mesh = Mesh(np.array(topology_devices("v5e:2x2")).reshape(2, 2), ("data", "model"))
    sequence, row, marks = P("data", None, "model"), P("data", "model"), P("data")
    x = jax.ShapeDtypeStruct(SHAPE, jnp.bfloat16, sharding=NamedSharding(mesh, sequence))
    h0 = jax.ShapeDtypeStruct(SHAPE[::2], jnp.float32, sharding=NamedSharding(mesh, row))
    reset = jax.ShapeDtypeStruct(SHAPE[:2], jnp.bool, sharding=NamedSharding(mesh, marks))

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(sequence, sequence, row, marks), out_specs=(sequence, sequence, row)
    )
    def gradients(x: jax.Array, log_a: jax.Array, h0: jax.Array, reset: jax.Array) -> tuple[jax.Array, ...]:
        outputs, pull = jax.vjp(lambda *given: linear_scan(*given, reset), x, log_a, h0)
        return pull(outputs)

    compiled = compile_for(gradients, (x, x, h0, reset), "v5e")
    assert compiled.as_text().count("tpu_custom_call") == 2
    assert COLLECTIVE.findall("%all-reduce.1 = f32[2,8]{1,0:T(2,128)} all-reduce(%x)") == ["all-reduce"]
    assert COLLECTIVE.findall(compiled.as_text()) == []
    assert layout_copies(compiled, 2**18) == ()
