"""What a stretch of time does to a state that passes through it, and how the stretches are joined.

Forward, a stretch turns the state h before it into exp(L) h + H: L is the sum of log a (its exponential is closer to
the truth than a product of decays), H the state after it from zero. Backward, it turns the cotangent c of the state
after it into exp(L) c + G. Both are a token of the plain recurrence, so the plain recurrence joins the stretches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from griffin_core_jax.gpu import linear_cell, rows
from griffin_core_jax.gpu.call import Call
from griffin_core_jax.gpu.forward import advance, forward
from griffin_core_jax.gpu.plan import Plan, plan
from griffin_core_jax.gpu.rows import Place, Tile

Step = Callable[[Tile, jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array]]


def states_before(call: Call, h0: jax.Array, plan: Plan) -> jax.Array:
    """The state before each stretch, float32 [b stretches d], from the first one [b d]."""
    if plan.stretches == 1:
        return h0[:, None]

    def step(tile: Tile, h: jax.Array, log: jax.Array, rate: Any) -> tuple[jax.Array, jax.Array]:
        for i, values in enumerate(tile.values):
            found = call.cell.log(values[call.cell.decay_at], rate)
            log = log + rows.choose(rows.reset_and_skip(tile, i)[1], 0.0, found)
            h, _ = advance(call, tile, i, rate, h)
        return h, log

    state, log = _through(call, plan, step, "states", reverse=False)
    return _join(state, log, _any_reset(call, plan), h0)


def cotangents_after(call: Call, dy: jax.Array, dh: jax.Array, plan: Plan) -> jax.Array:
    """The cotangent of the state after each stretch, float32 [b stretches d], from that of the last state [b d].

    Args:
        call: of the forward pass.
        dy: [b t d].
        dh: float32 [b d].
        plan: of the backward pass.
    """
    if plan.stretches == 1:
        return dh[:, None]
    cell = call.cell
    read = cell._replace(neutral=(cell.neutral[cell.decay_at], 0.0), decay_at=0)
    both = Call(read, (call.inputs[cell.decay_at], dy), call.rate, call.marks)

    def step(tile: Tile, c: jax.Array, log: jax.Array, rate: Any) -> tuple[jax.Array, jax.Array]:
        for i in reversed(range(plan.rows)):
            found = cell.log(tile.values[i][0], rate)
            reset, skip = rows.reset_and_skip(tile, i)
            through = rows.choose(reset, 0.0, cell.decay(found) * (c + tile.values[i][1].astype(jnp.float32)))
            c, log = rows.choose(skip, c, through), log + rows.choose(skip, 0.0, found)
        return c, log

    state, log = _through(both, plan, step, "cotangents", reverse=True)
    resets = _any_reset(call, plan)
    resets = None if resets is None else jnp.flip(resets, axis=1)
    return jnp.flip(_join(jnp.flip(state, axis=1), jnp.flip(log, axis=1), resets, dh), axis=1)


def _through(call: Call, plan: Plan, step: Step, name: str, reverse: bool) -> tuple[jax.Array, jax.Array]:
    """(what leaves each stretch when zero enters it, sum of natural log a), float32 [b stretches d]."""
    batch, _, width = call.shape
    size = ((batch, plan.stretches, width), jnp.float32)

    def kernel(*refs: Any) -> None:
        given, at = call.unpack(refs), rows.place(plan, call.shape)
        rate = None if given.rate is None else rows.load_channels(given.rate, at)

        def load(i: Any) -> Tile:
            tile = plan.tiles - 1 - i if reverse else i
            return rows.load_tile(given.inputs, call.cell.neutral, given.marks, at, tile, i < plan.tiles)

        def body(i: Any, carry: tuple[jax.Array, jax.Array, Tile]) -> tuple[jax.Array, jax.Array, Tile]:
            state, log, here = carry
            after = load(i + 1)  # in flight while this tile is computed
            return *step(here, state, log, rate), after

        zero = jnp.zeros(plan.width, jnp.float32)
        state, log, _ = jax.lax.fori_loop(0, plan.tiles, body, (zero, zero, load(0)))
        _write(given.others, at, state, log * call.cell.log_scale)

    found = rows.launch(kernel, f"{call.cell.operation}_{name}", plan, call.shape, call.arrays(), [size, size])
    return found[0], found[1]


def _write(refs: tuple[Any, ...], at: Place, *values: jax.Array) -> None:
    for ref, value in zip(refs, values, strict=True):
        rows.store(ref, at, at.stretch, value)


def _join(state: jax.Array, log: jax.Array, resets: jax.Array | None, first: jax.Array) -> jax.Array:
    """The states before each of the stretches, which are tokens now."""
    call = Call(linear_cell.CELL, (state, log), None, rows.pack_marks(resets, None))
    return forward(call, first[:, None], serial(state.shape), save_every=1)[2]


def serial(shape: tuple[int, ...]) -> Plan:
    """A plan of the plain recurrence that touches everything once, whatever the shape."""
    found = plan("linear_scan", "forward", shape, 4)
    return Plan(found.rows, -(-shape[1] // found.rows), 1)


def total(parts: jax.Array) -> jax.Array:
    """The sum over axis 1 of float32 [1 n d], in one order: a recurrence with decay 1."""
    call = Call(linear_cell.CELL, (parts, jnp.zeros_like(parts)), None, None)
    zero = jnp.zeros((parts.shape[0], 1, parts.shape[2]), jnp.float32)
    return forward(call, zero, serial(parts.shape))[1][0, 0]


def _any_reset(call: Call, plan: Plan) -> jax.Array | None:
    """bool [b stretches]: whether a document starts in a stretch."""
    if call.marks is None:
        return None
    late = plan.stretches * plan.tokens - call.shape[1]
    marks = jnp.pad(call.marks, ((0, 0), (0, late)))
    return jnp.any(marks.reshape(-1, plan.stretches, plan.tokens) == rows.RESET, axis=-1)
