"""gated_scan on a TPU: backward. Time blocks come last first; each computes its gates and states again, then gradients.

With L = log a, m = sqrt(1 - a^2), i = sigmoid(gate_x), r = sigmoid(gate_a), u = i x:

    g_t = dy_t + a_{t+1} g_{t+1};    q = g L a (h_{t-1} - u a / m);    dx = g m i;    dgate_x = g m i x (1 - i)
    dgate_a = (1 - r) q;    drecurrent_param = sigmoid(p) / softplus(p) sum q;    dh0 = a_0 g_0

L / m tends to -sqrt(-L / 2) as a tends to 1, so all of it is finite. Everything but g is made on the way forward, from
the float32 state before the block, and kept in VMEM; on the way back a gradient costs a product or two.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from griffin_core_jax.tpu import gate_math, marks
from griffin_core_jax.tpu import gated_rows as rows
from griffin_core_jax.tpu.gate_math import LN2, Form
from griffin_core_jax.tpu.gated_forward import SLOTS, Plan, channel_spec, group_marks, next_row, pairs, tile_terms
from griffin_core_jax.tpu.interpret import interpret
from griffin_core_jax.tpu.linear_scan_forward import SEMANTICS, block_specs, cost, group_rows, output_like, row_marks
from griffin_core_jax.tpu.tiling import GROUP, SUBLANES, Tiling


def gated_scan_backward(
    x: jax.Array,
    gate_x: jax.Array,
    gate_a: jax.Array,
    terms: jax.Array,
    starts: jax.Array,
    marked: tuple[jax.Array, jax.Array] | None,
    dy: jax.Array,
    dh: jax.Array,
    tiles: Tiling,
    form: Form,
) -> tuple[jax.Array, ...]:
    """Gradients of ``gated_scan_forward``.

    Args:
        x, gate_x, gate_a, terms, marked: as they went in.
        starts: float32 [b * time blocks, 1, d] from the forward pass with the same ``tiles.block_time``.
        dy: [b t d] in x's dtype.
        dh: float32 [b d].
        tiles: the blocks, of an even number of groups.
        form: how gates are computed.

    Returns:
        (dx, dgate_x, dgate_a, total, dh0): [b t d] in their inputs' dtypes; float32 [d], the sum of q / ln 2, added
        in a fixed order; float32 [b d].
    """
    batch, time, width = x.shape
    plan = Plan(tiles, form, marked is not None)
    sequence, row, start = block_specs(tiles, reverse=True)
    arguments = [x, gate_x, gate_a, terms, dy, starts, dh[:, None]]
    specs = [*[sequence] * 3, channel_spec(tiles), sequence, start, row]
    if marked is not None:
        arguments.insert(0, marks.pack(*marked, batch, time, tiles))
        specs.insert(0, marks.spec(tiles, reverse=True))
    struct, wide = functools.partial(output_like, x), jnp.float32
    sums = pl.BlockSpec((1, SUBLANES, plan.width), lambda b, w, t: (b, 0, w))
    *gradients, total, dh0 = pl.pallas_call(
        functools.partial(_kernel, plan=plan),
        out_shape=[
            *(struct(x.shape, value.dtype) for value in (x, gate_x, gate_a)),
            struct((batch, SUBLANES, width), wide),
            struct((batch, 1, width), wide),
        ],
        grid=tiles.grid,
        in_specs=specs,
        out_specs=[sequence, sequence, sequence, sums, row],
        scratch_shapes=_scratch(plan),
        compiler_params=pltpu.CompilerParams(dimension_semantics=SEMANTICS, vmem_limit_bytes=tiles.vmem_limit),
        cost_estimate=cost(x.size, (x, gate_x, gate_a, dy, x, gate_x, gate_a), exponentials=7, flops=60),
        interpret=interpret(),
        name="gated_scan_backward",
    )(*arguments)
    return *gradients, jnp.sum(total, axis=(0, 1)), dh0[:, 0]


class _Kept(NamedTuple):
    """What the way forward leaves in VMEM: [block_time w] each, and [groups ...] by rows for the last two."""

    scale: Any  # m i
    shut: Any  # m i x (1 - i)
    slope: Any  # u a / m
    ta: Any  # a log2 a
    closed: Any  # (1 - r) ln 2
    decays: Any  # a
    before: Any  # h_{t-1}


def _scratch(plan: Plan) -> list[Any]:
    plain = pltpu.VMEM((plan.tiles.block_time, plan.width), jnp.float32)
    kept = [*[plain] * 5, *[rows.scratch(plan.width, plan.groups)] * 2]
    return [*[rows.carry_scratch(plan.width)] * 2, *kept, *[rows.scratch(plan.width, SLOTS)] * 3]


def _kernel(*refs: Any, plan: Plan) -> None:
    marks_ref, refs = (refs[0], refs[1:]) if plan.marked else (None, refs)
    *inputs, dy_ref, start_ref, dh_ref = refs[:7]
    *gradients, sums_ref, dh0_ref, state, carry = refs[7:14]
    kept, (new, cotangents, passed) = _Kept(*refs[14:21]), refs[21:]

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        rows.spread(carry, dh_ref, plan.width)
        sums_ref[...] = jnp.zeros_like(sums_ref)

    rows.spread(state, start_ref, plan.width)
    _states(plan, marks_ref, inputs, kept, new, rows.read_carry(state, plan.width))
    outputs = (*gradients, sums_ref)
    g = _gradients(plan, marks_ref, dy_ref, kept, (cotangents, passed), outputs, rows.read_carry(carry, plan.width))
    rows.write_carry(carry, plan.width, g)

    @pl.when(pl.program_id(2) == plan.tiles.grid[2] - 1)
    def _() -> None:
        rows.gather(dh0_ref, carry, plan.width)


def _states(plan: Plan, marks_ref: Any, inputs: Any, kept: _Kept, entering: Any, h: rows.Row) -> None:
    """The way forward through a block: fills ``kept``."""

    def fill(slot: Any, group: Any, masked: bool, tile: Any) -> None:
        _fill(plan, inputs, kept, entering.at[slot], group, group_marks(marks_ref, group, masked), tile)

    def turn(slot: Any, group: Any, masked: bool, h: rows.Row) -> rows.Row:
        after = jnp.minimum(group + 1, plan.groups - 1)
        bits = marks_ref[0, 0, group] if masked else None

        def step(k: Any, h: rows.Row) -> rows.Row:
            rows.write_row(kept.before.at[group], k, plan.width, h)
            a, new = (rows.read_row(ref, k, plan.width) for ref in (kept.decays.at[group], entering.at[slot]))
            return next_row(a, new, h, None if bits is None else row_marks(bits, k)[0])

        return rows.interleave(plan.width, [functools.partial(fill, 1 - slot, after, masked)], step, h)

    zero = rows.constant(0)
    rows.every_tile(plan.width, functools.partial(fill, zero, zero, plan.marked))
    pairs(plan, marks_ref, turn, h)


def _fill(plan: Plan, inputs: Any, kept: _Kept, entering: Any, group: Any, masks: Any, tile: Any) -> None:
    """Everything of one tile of a group that does not depend on states."""
    where, (reset, skip) = (group_rows(group), rows.lanes(tile)), masks
    x, gate_x, gate_a = (ref[0, *where].astype(jnp.float32) for ref in inputs[:3])
    found = gate_math.decay(plan.form, gate_a, tile_terms(inputs[3], tile), reset, skip)
    entry = gate_math.entry(plan.form, gate_x, found.q)
    index, new = rows.group_tile(tile, plan.width), entry.scale * x
    kept.decays[group, *index] = found.a
    entering[index] = new if skip is None else jnp.where(skip, 0.0, new)
    kept.scale[where] = entry.scale
    kept.shut[where] = new * (1.0 - entry.gate)
    kept.slope[where] = (entry.gate * x) * entry.inverse * found.a
    kept.ta[where] = found.ta
    kept.closed[where] = LN2 - LN2 * found.gate


def _gradients(plan: Plan, marks_ref: Any, dy_ref: Any, kept: _Kept, slots: Any, outputs: Any, g: rows.Row) -> rows.Row:
    """The way back through a block: writes the gradients; returns what the rows before it receive."""
    cotangents, passed = slots

    def widen(slot: Any, group: Any, masked: bool, tile: Any) -> None:
        dy = dy_ref[0, group_rows(group), rows.lanes(tile)].astype(jnp.float32)
        skip = group_marks(marks_ref, group, masked)[1]
        cotangents[slot, *rows.group_tile(tile, plan.width)] = dy if skip is None else jnp.where(skip, 0.0, dy)

    def finish(slot: Any, group: Any, masked: bool, tile: Any) -> None:
        masks = group_marks(marks_ref, group, masked)
        _finish(plan, kept, passed.at[slot], outputs, group, masks, tile)

    def turn(slot: Any, group: Any, masked: bool, g: rows.Row) -> rows.Row:
        bits = marks_ref[0, 0, group] if masked else None
        nothing = tuple(jnp.zeros_like(piece) for piece in g)

        def step(k: Any, g: rows.Row) -> rows.Row:
            k = GROUP - 1 - k
            here = tuple(v + w for v, w in zip(rows.read_row(cotangents.at[slot], k, plan.width), g, strict=True))
            rows.write_row(passed.at[slot], k, plan.width, here)
            a = rows.read_row(kept.decays.at[group], k, plan.width)
            return next_row(a, nothing, here, None if bits is None else row_marks(bits, k)[0])

        following, earlier = jnp.minimum(group + 1, plan.groups - 1), jnp.maximum(group - 1, 0)
        works = [
            functools.partial(finish, 1 - slot, following, masked),
            functools.partial(widen, 1 - slot, earlier, masked),
        ]
        return rows.interleave(plan.width, works, step, g)

    passed[...] = jnp.zeros_like(passed)  # the first turn finishes a group that is not there: with g = 0
    rows.every_tile(plan.width, functools.partial(widen, rows.constant(0), plan.groups - 1, plan.marked))
    g = pairs(plan, marks_ref, turn, g, last=True)
    rows.every_tile(plan.width, functools.partial(finish, rows.constant(1), rows.constant(0), plan.marked))
    return g


def _finish(plan: Plan, kept: _Kept, passed: Any, outputs: Any, group: Any, masks: Any, tile: Any) -> None:
    """The gradients of one tile of a group, from g."""
    where, index, (reset, skip) = (group_rows(group), rows.lanes(tile)), rows.group_tile(tile, plan.width), masks
    g = passed[index]
    q = g * (kept.ta[where] * (kept.before[group, *index] - kept.slope[where]))
    q = q if reset is None else jnp.where(reset | skip, 0.0, q)
    gradients = (g * kept.scale[where], g * kept.shut[where], q * kept.closed[where])
    for ref, value in zip(outputs[:3], gradients, strict=True):
        ref[0, *where] = (value if skip is None else jnp.where(skip, 0.0, value)).astype(ref.dtype)
    outputs[3][0, :, where[1]] += q[:SUBLANES] + q[SUBLANES:]
