"""linear_scan on a TPU: forward. Rows of a group of 16 go one after another, whole blocks wide.

A row [1 block_width] of float32 lies in block_width / 1024 full registers: they are independent chains, so wide
blocks hide the latency of a multiply and an add. exp(log_a) is computed tile by tile and read back row by row
through a small scratch, and 16-bit arrays, whose rows are packed in pairs, take the same way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from griffin_core_jax.tpu import marks
from griffin_core_jax.tpu.interpret import interpret, mode
from griffin_core_jax.tpu.tiling import GROUP, Tiling

SEMANTICS = ("parallel", "parallel", "arbitrary")


def linear_scan_forward(
    x: jax.Array, log_a: jax.Array, h0: jax.Array, reset: jax.Array | None, tiles: Tiling, with_starts: bool = False
) -> tuple[jax.Array, ...]:
    """h_t = exp(log_a_t) h_{t-1} + x_t in float32.

    Args:
        x, log_a: [b t d], float32 or bfloat16, t >= 1.
        h0: float32 [b d].
        reset: bool [b t] or None.
        tiles: the blocks.
        with_starts: also return the state before each time block.

    Returns:
        (y, h): [b t d] in x's dtype; float32 [b d]. With starts also float32 [b * time blocks, 1, d].
    """
    batch, time, width = x.shape
    marked = reset is not None or time % tiles.block_time != 0
    sequence, row, start = block_specs(tiles)
    arguments, specs = [x, log_a, h0[:, None]], [sequence, sequence, row]
    if marked:
        arguments.insert(0, marks.pack(reset, None, batch, time, tiles))
        specs.insert(0, marks.spec(tiles))
    struct = functools.partial(output_like, x)
    shapes = [struct(x.shape, x.dtype), struct((batch, 1, width), jnp.float32)]
    outputs = [sequence, row]
    if with_starts:
        shapes.append(struct((batch * tiles.grid[2], 1, width), jnp.float32))
        outputs.append(start)
    group = pltpu.VMEM((GROUP, tiles.block_width), jnp.float32)
    found = pl.pallas_call(
        functools.partial(_kernel, tiles=tiles, marked=marked, with_starts=with_starts),
        out_shape=shapes,
        grid=tiles.grid,
        in_specs=specs,
        out_specs=outputs,
        scratch_shapes=[pltpu.VMEM((1, tiles.block_width), jnp.float32), group, group],
        compiler_params=pltpu.CompilerParams(dimension_semantics=SEMANTICS, vmem_limit_bytes=tiles.vmem_limit),
        cost_estimate=cost(x.size, (x, log_a, x), exponentials=1, flops=2),
        interpret=interpret(),
        name="linear_scan_forward",
    )(*arguments)
    return found[0], found[1][:, 0], *found[2:]


def output_like(x: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """An output that varies over the same mesh axes as x: ``shard_map`` checks it."""
    varies = getattr(jax.typeof(x), "manual_axis_type", None)
    return jax.ShapeDtypeStruct(shape, dtype, **({} if varies is None else {"manual_axis_type": varies}))


def block_specs(tiles: Tiling, reverse: bool = False) -> tuple[pl.BlockSpec, pl.BlockSpec, pl.BlockSpec]:
    """How the grid (batch, width tile, time block) reads [b t d], [b 1 d] and [b * time blocks, 1, d].

    ``reverse``: the last time block comes first.
    """
    blocks = tiles.grid[2]

    def place(t: Any) -> Any:
        return blocks - 1 - t if reverse else t

    sequence = pl.BlockSpec((1, tiles.block_time, tiles.block_width), lambda b, w, t: (b, place(t), w))
    row = pl.BlockSpec((1, 1, tiles.block_width), lambda b, w, t: (b, 0, w))
    start = pl.BlockSpec((1, 1, tiles.block_width), lambda b, w, t: (b * blocks + place(t), 0, w))
    return sequence, row, start


def cost(elements: int, moved: tuple[jax.Array, ...], exponentials: int, flops: int) -> pl.CostEstimate:
    """What XLA's scheduler is told of a kernel: its arithmetic per element, and the arrays that it moves."""
    return pl.CostEstimate(
        flops=flops * elements,
        transcendentals=exponentials * elements,
        bytes_accessed=sum(array.size * array.dtype.itemsize for array in moved),
    )


def group_rows(index: Any) -> Any:
    """The rows of a group, at an offset that the compiler knows to be aligned."""
    return pl.ds(pl.multiple_of(index * GROUP, GROUP), GROUP)


def one_row(index: Any, j: Any) -> Any:
    """Row j of a group."""
    return pl.ds(pl.multiple_of(index * GROUP, GROUP) + j, 1)


def each_row(step: Callable[[Any, Any], Any], carry: Any, reverse: bool = False) -> Any:
    """``carry = step(j, carry)`` for each row of a group: written out for the TPU, a loop when interpreted."""
    if mode() == "off":
        for j in reversed(range(GROUP)) if reverse else range(GROUP):
            carry = step(j, carry)
        return carry
    turn = (lambda i, carry: step(GROUP - 1 - i, carry)) if reverse else step
    return jax.lax.fori_loop(0, GROUP, turn, carry)


def row_marks(bits: Any, j: Any) -> tuple[Any, Any]:
    """(reset, skip) of row j, as scalars."""
    return (bits >> j) & 1 != 0, (bits >> (GROUP + j)) & 1 != 0


def next_state(a: Any, x: Any, h: Any, bits: Any, j: Any) -> tuple[Any, Any]:
    """(a h, the new state) of one row; ``bits`` None: no marks. Selection, so garbage and NaN stay behind."""
    carried = a * h
    if bits is None:
        return carried, carried + x
    reset, skip = row_marks(bits, j)
    carried = jnp.where(reset, 0.0, carried)
    return carried, jnp.where(skip, h, carried + x)


def _kernel(*refs: Any, tiles: Tiling, marked: bool, with_starts: bool) -> None:
    marks_ref, refs = (refs[0], refs[1:]) if marked else (None, refs)
    x_ref, log_a_ref, h0_ref, y_ref, last_ref, *rest = refs
    carry, a_rows, x_rows = rest[-3:]

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        carry[...] = h0_ref[0]

    if with_starts:
        rest[0][0] = carry[...]

    def group(index: Any, h: Any) -> Any:
        bits = None if marks_ref is None else marks_ref[0, 0, index]
        rows = group_rows(index)
        a_rows[...] = jnp.exp(log_a_ref[0, rows].astype(jnp.float32))
        packed = x_ref.dtype != jnp.float32
        if packed:
            x_rows[...] = x_ref[0, rows].astype(jnp.float32)

        def step(j: Any, h: Any) -> Any:
            x = x_rows[pl.ds(j, 1)] if packed else x_ref[0, one_row(index, j)]
            _, h = next_state(a_rows[pl.ds(j, 1)], x, h, bits, j)
            if packed:
                x_rows[pl.ds(j, 1)] = h
            else:
                y_ref[0, one_row(index, j)] = h
            return h

        h = each_row(step, h)
        if packed:
            y_ref[0, rows] = x_rows[...].astype(y_ref.dtype)
        return h

    carry[...] = jax.lax.fori_loop(0, tiles.groups, group, carry[...])

    @pl.when(pl.program_id(2) == tiles.grid[2] - 1)
    def _() -> None:
        last_ref[0] = carry[...]
