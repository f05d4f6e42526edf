"""Rows of [b t d] arrays inside a kernel: where a program stands, masked loads and stores, marks, the launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from griffin_core_jax.gpu.plan import Plan
from griffin_core_jax.tpu.interpret import interpret

RESET, SKIP = 1, 2
"""Marks of a token: it starts a document; it leaves the state alone, and its output is 0."""


class Place(NamedTuple):
    """Where a program stands.

    Attributes:
        plan: of the call.
        shape: (b, t, d).
        batch, stretch: of the program.
        first: its first channel.
        inside: bool [width]: which of its channels there are; None when all are there.
    """

    plan: Plan
    shape: tuple[int, ...]
    batch: jax.Array
    stretch: jax.Array
    first: jax.Array
    inside: jax.Array | None


class Tile(NamedTuple):
    """The loaded rows of a tile.

    Attributes:
        values: for each row one value [width] of every input.
        marks: for each row its mark, int32 []; empty where there are none.
    """

    values: tuple[tuple[jax.Array, ...], ...]
    marks: tuple[jax.Array, ...]


def place(plan: Plan, shape: tuple[int, ...]) -> Place:
    """Of the program that asks, in a grid (channel blocks, stretches, batch)."""
    first = pl.program_id(0) * plan.width
    inside = None if shape[2] % plan.width == 0 else first + jnp.arange(plan.width) < shape[2]
    return Place(plan, shape, pl.program_id(2), pl.program_id(1), first, inside)


def load(ref: Any, at: Place, row: Any, other: float = 0.0, valid: Any = None) -> jax.Array:
    """[width] of row ``row``; ``other`` where there is no such channel, or everywhere unless ``valid`` (bool [])."""
    mask = _mask(at, valid)
    found = ref.at[at.batch, row, pl.ds(at.first, at.plan.width)]
    if mask is None:
        return triton.load(found)
    return triton.load(found, mask=mask, other=jnp.asarray(other, ref.dtype))


def store(ref: Any, at: Place, row: Any, value: jax.Array, valid: Any = None) -> None:
    """Write [width] to row ``row`` in the array's dtype, if ``valid``."""
    found = ref.at[at.batch, row, pl.ds(at.first, at.plan.width)]
    triton.store(found, value.astype(ref.dtype), mask=_mask(at, valid))


def load_channels(ref: Any, at: Place) -> jax.Array:
    """[width] of an array [d]."""
    found = ref.at[pl.ds(at.first, at.plan.width)]
    return triton.load(found) if at.inside is None else triton.load(found, mask=at.inside, other=0.0)


def load_tile(refs: Sequence[Any], neutral: Sequence[float], marks: Any, at: Place, tile: Any, wanted: Any) -> Tile:
    """Every row of a tile, all loads before any use; after the end of time, and unless ``wanted``, it is neutral."""
    values, found = [], []
    for row in rows_of(at, tile):
        valid = wanted & in_time(at, row)
        values.append(tuple(load(ref, at, row, other, valid) for ref, other in zip(refs, neutral, strict=True)))
        if marks is not None:
            found.append(triton.load(marks.at[at.batch, row], mask=valid, other=SKIP))
    return Tile(tuple(values), tuple(found))


def rows_of(at: Place, tile: Any) -> list[Any]:
    """The tokens of a tile of this program's stretch."""
    start = at.stretch * at.plan.tokens + tile * at.plan.rows
    return [start + i for i in range(at.plan.rows)]


def in_time(at: Place, row: Any) -> Any:
    """Whether there is such a token: known at once where stretches end with time."""
    return True if at.plan.tokens * at.plan.stretches == at.shape[1] else row < at.shape[1]


def reset_and_skip(tile: Tile, i: int) -> tuple[Any, Any]:
    """Whether token i of the tile starts a document, and whether it is skipped (bool []); None without marks."""
    return (tile.marks[i] == RESET, tile.marks[i] == SKIP) if tile.marks else (None, None)


def choose(condition: Any, value: Any, otherwise: Any) -> Any:
    """``value`` where the condition holds; ``otherwise`` when there is no condition."""
    return otherwise if condition is None else jnp.where(condition, value, otherwise)


def pack_marks(reset: jax.Array | None, skip: jax.Array | None) -> jax.Array | None:
    """int32 [b t] of bool [b t]; None when there are neither."""
    if reset is None and skip is None:
        return None
    shape = (reset if reset is not None else skip).shape  # type: ignore[union-attr]
    found = jnp.zeros(shape, jnp.int32) if reset is None else jnp.where(reset, RESET, 0)
    return found if skip is None else jnp.where(skip, SKIP, found)


def launch(
    kernel: Callable[..., None],
    name: str,
    plan: Plan,
    shape: tuple[int, ...],
    inputs: Sequence[jax.Array],
    outputs: Sequence[tuple[tuple[int, ...], Any]],
) -> tuple[jax.Array, ...]:
    """Run a kernel over the plan's grid; whole arrays come in, each program finds its own place.

    The compiler parameters choose Triton: left out, JAX would take Mosaic, which knows fewer GPUs.
    """
    found = pl.pallas_call(
        kernel,
        grid=plan.grid(shape),
        out_shape=[jax.ShapeDtypeStruct(*output) for output in outputs],  # type: ignore[no-untyped-call]
        compiler_params=triton.CompilerParams(num_warps=plan.warps, num_stages=1),
        interpret=interpret(),
        name=name,
    )(*inputs)
    return tuple(found)


def _mask(at: Place, valid: Any) -> Any:
    if valid is None or valid is True:
        return at.inside
    if at.inside is None:
        return jnp.broadcast_to(valid, (at.plan.width,))
    return at.inside & valid
