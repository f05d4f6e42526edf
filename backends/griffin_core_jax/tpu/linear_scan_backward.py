"""linear_scan on a TPU: backward. Time blocks come last first; inside one, states are computed again, then gradients.

    g_t = dy_t + a_{t+1} g_{t+1};  dx = g;  dlog_a = g_t (a_t h_{t-1});  dh0 = a_0 g_0

The states come from the float32 state before the block that the forward pass left, never from a rounded y.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from griffin_core_jax.tpu import marks
from griffin_core_jax.tpu.interpret import interpret
from griffin_core_jax.tpu.linear_scan_forward import (
    SEMANTICS,
    block_specs,
    cost,
    each_row,
    group_rows,
    next_state,
    one_row,
    output_like,
    row_marks,
)
from griffin_core_jax.tpu.tiling import GROUP, Tiling


def linear_scan_backward(
    x: jax.Array,
    log_a: jax.Array,
    starts: jax.Array,
    reset: jax.Array | None,
    dy: jax.Array,
    dh: jax.Array,
    tiles: Tiling,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of ``linear_scan_forward``.

    Args:
        x, log_a: [b t d], as they went in.
        starts: float32 [b * time blocks, 1, d] from the forward pass with the same ``tiles.block_time``.
        reset: bool [b t] or None.
        dy: [b t d] in x's dtype.
        dh: float32 [b d].
        tiles: the blocks.

    Returns:
        (dx, dlog_a, dh0): [b t d] in their inputs' dtypes, float32 [b d].
    """
    batch, time, width = x.shape
    marked = reset is not None or time % tiles.block_time != 0
    sequence, row, start = block_specs(tiles, reverse=True)
    arguments = [x, log_a, dy, starts, dh[:, None]]
    specs = [sequence, sequence, sequence, start, row]
    if marked:
        arguments.insert(0, marks.pack(reset, None, batch, time, tiles))
        specs.insert(0, marks.spec(tiles, reverse=True))
    struct, wide = functools.partial(output_like, x), jnp.float32
    block = pltpu.VMEM((tiles.block_time, tiles.block_width), wide)
    dx, dlog_a, dh0 = pl.pallas_call(
        functools.partial(_kernel, tiles=tiles, marked=marked),
        out_shape=[struct(x.shape, x.dtype), struct(x.shape, log_a.dtype), struct((batch, 1, width), wide)],
        grid=tiles.grid,
        in_specs=specs,
        out_specs=[sequence, sequence, row],
        scratch_shapes=[
            pltpu.VMEM((1, tiles.block_width), wide),
            pltpu.VMEM((GROUP, tiles.block_width), wide),
            block,
            block,
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=SEMANTICS, vmem_limit_bytes=tiles.vmem_limit),
        cost_estimate=cost(x.size, (x, log_a, dy, x, log_a), exponentials=1, flops=6),
        interpret=interpret(),
        name="linear_scan_backward",
    )(*arguments)
    return dx, dlog_a, dh0[:, 0]


def _kernel(*refs: Any, tiles: Tiling, marked: bool) -> None:
    marks_ref, refs = (refs[0], refs[1:]) if marked else (None, refs)
    x_ref, log_a_ref, dy_ref, start_ref, dh_ref, dx_ref, dlog_a_ref, dh0_ref, carry, buffer, decays, carried = refs

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        carry[...] = dh_ref[0]

    states = functools.partial(_states, marks_ref, x_ref, log_a_ref, buffer, decays, carried)
    jax.lax.fori_loop(0, tiles.groups, states, start_ref[0])
    gradients = functools.partial(_gradients, tiles.groups, marks_ref, dy_ref, dx_ref, dlog_a_ref, buffer, decays)
    carry[...] = jax.lax.fori_loop(0, tiles.groups, functools.partial(gradients, carried), carry[...])

    @pl.when(pl.program_id(2) == tiles.grid[2] - 1)
    def _() -> None:
        dh0_ref[0] = carry[...]


def _states(
    marks_ref: Any, x_ref: Any, log_a_ref: Any, buffer: Any, decays: Any, carried: Any, index: Any, h: Any
) -> Any:
    """Fill ``decays`` with a and ``carried`` with a_t h_{t-1} of one group; returns the state after it."""
    bits = None if marks_ref is None else marks_ref[0, 0, index]
    rows, packed = group_rows(index), x_ref.dtype != jnp.float32
    decays[rows] = jnp.exp(log_a_ref[0, rows].astype(jnp.float32))
    if packed:
        buffer[...] = x_ref[0, rows].astype(jnp.float32)

    def step(j: Any, h: Any) -> Any:
        row = one_row(index, j)
        x = buffer[pl.ds(j, 1)] if packed else x_ref[0, row]
        carried[row], h = next_state(decays[row], x, h, bits, j)
        return h

    return each_row(step, h)


def _gradients(
    groups: int,
    marks_ref: Any,
    dy_ref: Any,
    dx_ref: Any,
    dlog_a_ref: Any,
    buffer: Any,
    decays: Any,
    carried: Any,
    turn: Any,
    g: Any,
) -> Any:
    """Gradients of one group, its last row first; ``g`` comes from the row after it and goes to the row before."""
    index = groups - 1 - turn
    bits = None if marks_ref is None else marks_ref[0, 0, index]
    rows, packed = group_rows(index), dx_ref.dtype != jnp.float32
    if packed:
        buffer[...] = dy_ref[0, rows].astype(jnp.float32)

    def step(j: Any, g: Any) -> Any:
        row = one_row(index, j)
        here = g + (buffer[pl.ds(j, 1)] if packed else dy_ref[0, row])
        if packed:
            buffer[pl.ds(j, 1)] = here
        else:
            dx_ref[0, row] = here
        before = decays[row] * here
        if bits is None:
            return before
        reset, skip = row_marks(bits, j)
        return jnp.where(skip, g, jnp.where(reset, 0.0, before))

    g = each_row(step, g, reverse=True)
    wide = buffer[...] if packed else dx_ref[0, rows]
    if packed:
        dx_ref[0, rows] = wide.astype(dx_ref.dtype)
    dlog_a_ref[0, rows] = (wide * carried[rows]).astype(dlog_a_ref.dtype)
    return g
