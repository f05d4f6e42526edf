"""gated_scan on a TPU: forward. One pass over x, gate_x and gate_a; nothing but y and the last state is written.

The gates of a group of 16 rows are computed while the rows of the group before it are scanned: the first is bound by
arithmetic, the second by the latency of a multiply and an add in every row. Groups that ``marks`` names nothing in or
beside take a path without masks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from griffin_core_jax.tpu import gate_math, marks
from griffin_core_jax.tpu import gated_rows as rows
from griffin_core_jax.tpu.gate_math import Form
from griffin_core_jax.tpu.interpret import interpret, mode
from griffin_core_jax.tpu.linear_scan_forward import SEMANTICS, block_specs, cost, group_rows, output_like, row_marks
from griffin_core_jax.tpu.tiling import Tiling

SLOTS = 2
"""Groups in flight: one is scanned while the other is filled."""
SPAN = 4
"""Groups written out in one turn of the loop: its beginning and end, where little overlaps, come half as often."""


@dataclass(frozen=True)
class Plan:
    """What is fixed when a kernel is traced.

    Attributes:
        tiles: the blocks; an even number of groups each.
        form: how gates are computed.
        marked: whether the kernel has marks to read.
        with_starts: whether the state before each time block is kept.
    """

    tiles: Tiling
    form: Form
    marked: bool
    with_starts: bool = False

    @property
    def width(self) -> int:
        """Channels of a block."""
        return self.tiles.block_width

    @property
    def groups(self) -> int:
        """Groups of 16 rows of a block."""
        return self.tiles.groups


def gated_scan_forward(
    x: jax.Array,
    gate_x: jax.Array,
    gate_a: jax.Array,
    terms: jax.Array,
    h0: jax.Array,
    marked: tuple[jax.Array, jax.Array] | None,
    tiles: Tiling,
    form: Form,
    with_starts: bool = False,
) -> tuple[jax.Array, ...]:
    """h_t = a_t h_{t-1} + m_t sigmoid(gate_x_t) x_t (Griffin, section 2.4), float32 inside.

    Args:
        x, gate_x, gate_a: [b t d], float32 or bfloat16, t >= 1.
        terms: float32 [2 d] of ``gate_math.channel_terms``.
        h0: float32 [b d].
        marked: (reset, skip) bool [b t], or None when there is neither and ``tiles`` cut time evenly.
        tiles: the blocks, of an even number of groups.
        form: how gates are computed.
        with_starts: also return the state before each time block.

    Returns:
        (y, h): [b t d] in x's dtype, float32 [b d]. With starts also float32 [b * time blocks, 1, d].
    """
    batch, time, width = x.shape
    plan = Plan(tiles, form, marked is not None, with_starts)
    sequence, row, start = block_specs(tiles)
    arguments, specs = [x, gate_x, gate_a, terms, h0[:, None]], [sequence] * 3 + [channel_spec(tiles), row]
    if marked is not None:
        arguments.insert(0, marks.pack(*marked, batch, time, tiles))
        specs.insert(0, marks.spec(tiles))
    struct = functools.partial(output_like, x)
    shapes, outputs = [struct(x.shape, x.dtype), struct((batch, 1, width), jnp.float32)], [sequence, row]
    if with_starts:
        shapes.append(struct((batch * tiles.grid[2], 1, width), jnp.float32))
        outputs.append(start)
    found = pl.pallas_call(
        functools.partial(_kernel, plan=plan),
        out_shape=shapes,
        grid=tiles.grid,
        in_specs=specs,
        out_specs=outputs,
        scratch_shapes=[rows.carry_scratch(plan.width), *[rows.scratch(plan.width, SLOTS)] * 3],
        compiler_params=pltpu.CompilerParams(dimension_semantics=SEMANTICS, vmem_limit_bytes=tiles.vmem_limit),
        cost_estimate=cost(x.size, (x, gate_x, gate_a, x), exponentials=7, flops=35),
        interpret=interpret(),
        name="gated_scan_forward",
    )(*arguments)
    return found[0], found[1][:, 0], *found[2:]


def channel_spec(tiles: Tiling) -> pl.BlockSpec:
    """How the grid reads [2 d]."""
    return pl.BlockSpec((2, tiles.block_width), lambda b, w, t: (0, w))


Turn = Callable[[Any, Any, bool, Any], Any]
"""(slot, group, masked, carry) -> carry."""


def pairs(plan: Plan, marks_ref: Any, turn: Turn, carry: Any, last: bool = False) -> Any:
    """``carry = turn(slot, group, masked, carry)`` for every group in order; ``last``: from the last group backwards.

    Slots alternate; compiled, they are constants. ``masked`` is true where these groups or their neighbours have marks.
    """

    count = SPAN if plan.groups % SPAN == 0 and plan.groups > SPAN else SLOTS

    def one(slot: Any, place: Any, carry: Any, masked: bool) -> Any:
        return turn(slot, plan.groups - 1 - place if last else place, masked, carry)

    def clean(index: Any, carry: Any) -> Any:
        for i in range(count):
            carry = one(i % SLOTS, count * index + i, carry, False)
        return carry

    def marked(index: Any, carry: Any) -> Any:  # one copy of the body, turned: it is taken seldom, and compiled always
        first = count * index
        return jax.lax.fori_loop(0, count, lambda i, carry: one(i % SLOTS, first + i, carry, True), carry)

    def body(index: Any, carry: Any) -> Any:
        if marks_ref is None:
            return clean(index, carry)
        near = [jnp.clip(count * index + i, 0, plan.groups - 1) for i in range(-1, count + 1)]
        words = [marks_ref[0, 0, plan.groups - 1 - i if last else i] for i in near]
        nothing = functools.reduce(jnp.bitwise_or, words) == 0
        return jax.lax.cond(nothing, functools.partial(clean, index), functools.partial(marked, index), carry)

    if mode() == "plain":  # each copy of the body takes XLA seconds: one, with masks if there are any
        loop = functools.partial(one, masked=marks_ref is not None)
        return jax.lax.fori_loop(0, plan.groups, lambda place, carry: loop(place % SLOTS, place, carry), carry)
    return jax.lax.fori_loop(0, plan.groups // count, body, carry)


def next_row(a: rows.Row, b: rows.Row, h: rows.Row, reset: Any) -> rows.Row:
    """a h + b, and b alone at a reset (None: nowhere), whatever h holds."""
    steps = [(a_piece * h_piece, b_piece) for a_piece, b_piece, h_piece in zip(a, b, h, strict=True)]
    if reset is None:
        return tuple(kept + new for kept, new in steps)
    return tuple(jnp.where(reset, new, kept + new) for kept, new in steps)


def tile_terms(terms_ref: Any, tile: Any) -> gate_math.Terms:
    """The channel terms of one tile, each read as a row so that the load spreads it."""
    return terms_ref[0:1, rows.lanes(tile)], terms_ref[1:2, rows.lanes(tile)]


def group_marks(marks_ref: Any, group: Any, masked: bool) -> tuple[Any, Any]:
    """(reset, skip) of a group as masks [16 1]; (None, None) on the path without."""
    return marks.masks(marks_ref[0, 0, group]) if masked else (None, None)


def _kernel(*refs: Any, plan: Plan) -> None:
    marks_ref, refs = (refs[0], refs[1:]) if plan.marked else (None, refs)
    x_ref, gate_x_ref, gate_a_ref, terms_ref, h0_ref, y_ref, last_ref, *rest = refs
    carry, *buffers = rest[1:] if plan.with_starts else rest

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        rows.spread(carry, h0_ref, plan.width)

    if plan.with_starts:
        rows.gather(rest[0], carry, plan.width)
    inputs = (x_ref, gate_x_ref, gate_a_ref, terms_ref)

    def slots(slot: Any) -> list[Any]:
        return [ref.at[slot] for ref in buffers]

    def turn(slot: Any, group: Any, masked: bool, h: rows.Row) -> rows.Row:
        after = jnp.minimum(group + 1, plan.groups - 1)
        fill = functools.partial(_fill, plan, inputs, slots(1 - slot), after, group_marks(marks_ref, after, masked))
        step = functools.partial(_step, plan, slots(slot), marks_ref[0, 0, group] if masked else None)
        before = jnp.maximum(group - 1, 0)  # the first turn writes a group that is not there, and the second its place
        skip = group_marks(marks_ref, before, masked)[1]
        emit = functools.partial(_emit, plan, buffers[2].at[1 - slot], y_ref, before, skip)
        return rows.interleave(plan.width, [emit, fill], step, h)

    first = functools.partial(_fill, plan, inputs, slots(rows.constant(0)), 0, group_marks(marks_ref, 0, plan.marked))
    rows.every_tile(plan.width, first)
    h = pairs(plan, marks_ref, turn, rows.read_carry(carry, plan.width))
    rows.write_carry(carry, plan.width, h)
    place, last = rows.constant(1), plan.groups - 1
    skip = group_marks(marks_ref, last, plan.marked)[1]
    rows.every_tile(plan.width, functools.partial(_emit, plan, buffers[2].at[place], y_ref, last, skip))

    @pl.when(pl.program_id(2) == plan.tiles.grid[2] - 1)
    def _() -> None:
        rows.gather(last_ref, carry, plan.width)


def _fill(plan: Plan, inputs: Any, buffers: Any, group: Any, masks: Any, tile: Any) -> None:
    """Decay and scan input of one tile of a group."""
    where, (reset, skip) = (0, group_rows(group), rows.lanes(tile)), masks
    x, gate_x, gate_a = (ref[where].astype(jnp.float32) for ref in inputs[:3])
    found = gate_math.decay(plan.form, gate_a, tile_terms(inputs[3], tile), reset, skip)
    new = gate_math.entering(plan.form, gate_x, found.q) * x
    index = rows.group_tile(tile, plan.width)
    buffers[0][index] = found.a
    buffers[1][index] = new if skip is None else jnp.where(skip, 0.0, new)


def _step(plan: Plan, buffers: Any, bits: Any, k: Any, h: rows.Row) -> rows.Row:
    """One row of the recurrence."""
    a, new = (rows.read_row(ref, k, plan.width) for ref in buffers[:2])
    h = next_row(a, new, h, None if bits is None else row_marks(bits, k)[0])
    rows.write_row(buffers[2], k, plan.width, h)
    return h


def _emit(plan: Plan, states: Any, y_ref: Any, group: Any, skip: Any, tile: Any) -> None:
    """Write one tile of a group's states; 0 where skipped."""
    y = states[rows.group_tile(tile, plan.width)]
    y = y if skip is None else jnp.where(skip, 0.0, y)
    y_ref[0, group_rows(group), rows.lanes(tile)] = y.astype(y_ref.dtype)
