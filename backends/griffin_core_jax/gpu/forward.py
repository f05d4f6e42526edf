"""The forward pass of a cell: y, the last states, and the states before each few rows for the backward pass."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from griffin_core_jax.gpu import rows
from griffin_core_jax.gpu.call import Call
from griffin_core_jax.gpu.plan import Plan
from griffin_core_jax.gpu.rows import Tile


def forward(call: Call, starts: jax.Array, plan: Plan, save_every: int | None = None) -> tuple[jax.Array, ...]:
    """Run the recurrence in every stretch of time.

    Args:
        call: what to run on.
        starts: float32 [b stretches d], the states before each stretch.
        plan: how to cut it.
        save_every: rows between saved states, a divisor of the plan's rows; None saves none.

    Returns:
        y [b t d] in the first input's dtype; float32 [b stretches d], the states after each stretch; where asked for,
        float32 [b ceil(t / save_every) d], the states before each so many rows.
    """
    batch, time, width = call.shape
    sizes: list[tuple[tuple[int, ...], Any]] = [(call.shape, call.inputs[0].dtype), (starts.shape, jnp.float32)]
    if save_every is not None:
        sizes.append(((batch, -(-time // save_every), width), jnp.float32))

    def kernel(*refs: Any) -> None:
        _walk(call, plan, save_every, refs)

    name = f"{call.cell.operation}_forward"
    return rows.launch(kernel, name, plan, call.shape, [*call.arrays(), starts], sizes)


def _walk(call: Call, plan: Plan, save_every: int | None, refs: tuple[Any, ...]) -> None:
    given, at = call.unpack(refs), rows.place(plan, call.shape)
    starts, y_ref, last_ref, *saved = given.others
    rate = None if given.rate is None else rows.load_channels(given.rate, at)

    def load(tile: Any) -> Tile:
        return rows.load_tile(given.inputs, call.cell.neutral, given.marks, at, tile, tile < plan.tiles)

    def step(tile: Any, carry: tuple[jax.Array, Tile]) -> tuple[jax.Array, Tile]:
        h, here = carry
        after = load(tile + 1)  # in flight while this tile is computed
        outputs = []
        for i, row in enumerate(rows.rows_of(at, tile)):
            if saved and i % save_every == 0:  # type: ignore[operator]
                rows.store(saved[0], at, row // save_every, h, rows.in_time(at, row))
            h, y = advance(call, here, i, rate, h)
            outputs.append((row, y))
        for row, y in outputs:
            rows.store(y_ref, at, row, y, rows.in_time(at, row))
        return h, after

    h = rows.load(starts, at, at.stretch)
    h, _ = jax.lax.fori_loop(0, plan.tiles, step, (h, load(0)))
    rows.store(last_ref, at, at.stretch, h)


def advance(call: Call, tile: Tile, i: int, rate: Any, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(the state after token i of a tile, its output: 0 at padding)."""
    entry = call.cell.enter(tile.values[i], rate)
    reset, skip = rows.reset_and_skip(tile, i)
    after = rows.choose(skip, h, rows.choose(reset, entry.fresh, entry.a * h + entry.u))
    return after, rows.choose(skip, 0.0, after)
