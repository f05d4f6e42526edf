"""Resets, padding and the ragged end of time, packed to two bits a row in scalar memory.

A kernel reads one int32 for a group of 16 rows: bit j says that row j is a reset, bit 16 + j that it is skipped
(padding, or a row at or after the end of time, whose data may be garbage). 0 - most groups - asks for no mask.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from griffin_core_jax.tpu.tiling import GROUP, Tiling


def pack(reset: jax.Array | None, skip: jax.Array | None, batch: int, time: int, tiles: Tiling) -> jax.Array:
    """The marks of a call.

    Args:
        reset: bool [b t] or None.
        skip: bool [b t] or None: rows that leave the state alone.
        batch, time: b and t.
        tiles: the blocks that will read them.

    Returns:
        int32 [b * time blocks, 1, groups of a block].
    """
    blocks = tiles.grid[2]
    padded = blocks * tiles.block_time
    late = jnp.broadcast_to(jnp.arange(padded) >= time, (batch, padded))
    bits = jnp.zeros((batch, padded), jnp.uint32)
    place = jnp.arange(padded, dtype=jnp.uint32) % GROUP
    for rows, shift in ((reset, 0), (skip, GROUP)):
        if rows is not None:
            bits |= jnp.pad(rows.astype(jnp.uint32), ((0, 0), (0, padded - time))) << (place + shift)
    bits |= late.astype(jnp.uint32) << (place + GROUP)
    packed = jnp.sum(bits.reshape(batch * blocks, 1, tiles.groups, GROUP), axis=-1, dtype=jnp.uint32)
    return jax.lax.bitcast_convert_type(packed, jnp.int32)


def spec(tiles: Tiling, reverse: bool = False) -> pl.BlockSpec:
    """How a kernel's grid (batch, width tile, time block) reads the marks; ``reverse``: last time block first."""
    blocks = tiles.grid[2]

    def index(b: int, w: int, t: int) -> tuple[int, int, int]:
        return b * blocks + (blocks - 1 - t if reverse else t), 0, 0

    return pl.BlockSpec((1, 1, tiles.groups), index, memory_space=pltpu.SMEM)


def masks(bits: jax.Array, rows: int = GROUP) -> tuple[jax.Array, jax.Array]:
    """(reset, skip): bool [rows, 1] of a group."""
    place = jax.lax.broadcasted_iota(jnp.int32, (rows, 1), 0)
    return (bits >> place) & 1 != 0, (bits >> (place + GROUP)) & 1 != 0
