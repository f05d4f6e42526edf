"""The backward pass of a cell: gates and states are computed again from the saved states, nothing [b t d] is kept.

    g_t = dy_t + c_t,    c_{t-1} = a_t g_t    (0 where token t starts a document)

Tiles come last first. A tile runs forward from its saved state, then back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from griffin_core_jax.gpu import rows
from griffin_core_jax.gpu.call import Call, Given
from griffin_core_jax.gpu.cell import Entry
from griffin_core_jax.gpu.plan import Plan
from griffin_core_jax.gpu.rows import Place, Tile


class Loaded(NamedTuple):
    """A tile of the inputs, of dy, and the state before it."""

    inputs: Tile
    dy: Tile
    start: jax.Array


def backward(
    call: Call, saved: jax.Array, dy: jax.Array, cotangents: jax.Array, plan: Plan
) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array | None]:
    """Gradients of ``forward``.

    Args:
        call: as it went forward.
        saved: float32 [b ceil(t / rows) d], the states before each tile of ``plan``.
        dy: [b t d].
        cotangents: float32 [b stretches d] of the states after each stretch.
        plan: how to cut it.

    Returns:
        The gradient of every input in its dtype; float32 [b stretches d], the cotangents of the states before each
        stretch; float32 [b stretches d], the sums of the rate's gradient, or None.
    """
    edge = (cotangents.shape, jnp.float32)
    sizes = [*((v.shape, v.dtype) for v in call.inputs), edge, *([edge] if call.cell.per_channel else [])]

    def kernel(*refs: Any) -> None:
        _walk(call, plan, refs)

    arrays = [*call.arrays(), saved, dy, cotangents]
    found = rows.launch(kernel, f"{call.cell.operation}_backward", plan, call.shape, arrays, sizes)
    count = len(call.inputs)
    return found[:count], found[count], found[count + 1] if call.cell.per_channel else None


def _walk(call: Call, plan: Plan, refs: tuple[Any, ...]) -> None:
    given, at = call.unpack(refs), rows.place(plan, call.shape)
    cotangents, out = given.others[2], given.others[3:]
    rate = None if given.rate is None else rows.load_channels(given.rate, at)

    def step(i: Any, carry: tuple[Loaded, jax.Array, Any]) -> tuple[Loaded, jax.Array, Any]:
        here, c, total = carry
        before = _load(call, given, at, plan.tiles - 2 - i)  # in flight while this tile is computed
        numbers = rows.rows_of(at, plan.tiles - 1 - i)
        entries, states = _replay(call, here, rate)
        found = []
        for j in reversed(range(plan.rows)):
            gradients, through, c = _step_back(call, here, j, entries[j], states[j], c)
            total = total if through is None else total + through
            found.append((numbers[j], gradients))
        for row, gradients in found:
            for ref, value in zip(out, gradients, strict=False):
                rows.store(ref, at, row, value, rows.in_time(at, row))
        return before, c, total

    total = jnp.zeros(plan.width, jnp.float32) if call.cell.per_channel else None
    first = (_load(call, given, at, plan.tiles - 1), rows.load(cotangents, at, at.stretch), total)
    _, c, total = jax.lax.fori_loop(0, plan.tiles, step, first)
    count = len(call.inputs)
    rows.store(out[count], at, at.stretch, c)
    if total is not None:
        rows.store(out[count + 1], at, at.stretch, total)


def _load(call: Call, given: Given, at: Place, tile: Any) -> Loaded:
    wanted = tile >= 0
    inputs = rows.load_tile(given.inputs, call.cell.neutral, given.marks, at, tile, wanted)
    dy = rows.load_tile(given.others[1:2], (0.0,), None, at, tile, wanted)
    number = at.stretch * at.plan.tiles + tile
    there = wanted & rows.in_time(at, number * at.plan.rows)
    return Loaded(inputs, dy, rows.load(given.others[0], at, number, 0.0, there))


def _replay(call: Call, here: Loaded, rate: Any) -> tuple[list[Entry], list[jax.Array]]:
    """What each token of a tile does, and the state before it."""
    h, entries, states = here.start, [], []
    for i, values in enumerate(here.inputs.values):
        entry = call.cell.enter(values, rate)
        reset, skip = rows.reset_and_skip(here.inputs, i)
        entries.append(entry)
        states.append(h)
        h = rows.choose(skip, h, rows.choose(reset, entry.fresh, entry.a * h + entry.u))
    return entries, states


def _step_back(
    call: Call, here: Loaded, j: int, entry: Entry, before: jax.Array, c: jax.Array
) -> tuple[tuple[jax.Array, ...], jax.Array | None, jax.Array]:
    """(gradients of token j's inputs, that of the rate, the cotangent of the state before it)."""
    reset, skip = rows.reset_and_skip(here.inputs, j)
    g = here.dy.values[j][0].astype(jnp.float32) + c
    gradients, through = call.cell.gradients(entry, here.inputs.values[j], g, before, reset)
    gradients = tuple(rows.choose(skip, 0.0, value) for value in gradients)
    through = None if through is None else rows.choose(skip, 0.0, through)
    return gradients, through, rows.choose(skip, c, rows.choose(reset, 0.0, entry.a * g))
