"""Rows of a group in VMEM so that one instruction moves 1024 channels of a time step.

A float32 block [16 w] lies in VMEM as tiles of 8 rows x 128 channels: a row of it is spread over w / 128 tiles, and
the load that gathers them takes 4 tiles at a time when they are a multiple of 8 lines of 128 apart. Here row k of a
group lies in lines k s ... k s + n - 1, n = w / 128, of a scratch [lines 128], with an *odd* s >= n: then tiles are
written and read (stride s) and rows are read and written (8 lines at once) by single full instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from griffin_core_jax.tpu.interpret import mode
from griffin_core_jax.tpu.tiling import GROUP, LANES, SUBLANES

Row = tuple[Any, ...]
"""One time step of all channels: float32 [8 128] registers, the last one perhaps lower."""


def tiles_of(width: int) -> int:
    """Tiles of 128 channels in a block's width."""
    return width // LANES


def stride_of(width: int) -> int:
    """Lines from one row to the next."""
    return tiles_of(width) | 1


def scratch(width: int, groups: int | None = None) -> Any:
    """VMEM for the rows of a group, or [groups ...] for those of several."""
    lines = GROUP * stride_of(width)
    return pltpu.VMEM((lines, LANES) if groups is None else (groups, lines, LANES), jnp.float32)


def carry_scratch(width: int) -> Any:
    """VMEM for one row."""
    return pltpu.VMEM((tiles_of(width), LANES), jnp.float32)


def constant(index: int) -> Any:
    """A known group or slot: the interpreters take no plain number beside a stride."""
    return index if mode() == "off" else jnp.int32(index)


def lanes(tile: Any) -> Any:
    """The channels of a tile."""
    return pl.ds(tile * LANES if isinstance(tile, int) else pl.multiple_of(tile * LANES, LANES), LANES)


def group_tile(tile: Any, width: int) -> Any:
    """Index of one tile [16 128] of a group's scratch."""
    return pl.ds(tile, GROUP, stride=stride_of(width)), slice(None)


def read_row(ref: Any, k: Any, width: int) -> Row:
    """Row k of a group's scratch."""
    return tuple(ref[pl.ds(k * stride_of(width) + start, lines), :] for start, lines in _pieces(width))


def write_row(ref: Any, k: Any, width: int, row: Row) -> None:
    """Store row k of a group's scratch."""
    for (start, lines), piece in zip(_pieces(width), row, strict=True):
        ref[pl.ds(k * stride_of(width) + start, lines), :] = piece


def read_carry(ref: Any, width: int) -> Row:
    """The row of ``carry_scratch``."""
    return tuple(ref[pl.ds(start, lines), :] for start, lines in _pieces(width))


def write_carry(ref: Any, width: int, row: Row) -> None:
    """Store the row of ``carry_scratch``."""
    for (start, lines), piece in zip(_pieces(width), row, strict=True):
        ref[pl.ds(start, lines), :] = piece


def spread(carry: Any, vector: Any, width: int) -> None:
    """Copy a block [1 1 w] into ``carry_scratch``."""
    for tile in range(tiles_of(width)):
        carry[tile : tile + 1, :] = vector[0, :, tile * LANES : (tile + 1) * LANES]


def gather(vector: Any, carry: Any, width: int) -> None:
    """Copy ``carry_scratch`` into a block [1 1 w]."""
    for tile in range(tiles_of(width)):
        vector[0, :, tile * LANES : (tile + 1) * LANES] = carry[tile : tile + 1, :]


def interleave(
    width: int, each_tile: Sequence[Callable[[Any], None]], each_row: Callable[[Any, Row], Row], row: Row
) -> Row:
    """Run ``each_tile`` on every tile and ``each_row`` on 16 rows, which must not depend on each other.

    A row waits for the row before it, tiles wait for nothing: written in turn they fill each other's gaps. The
    interpreters run one after the other, in loops.
    """
    count = tiles_of(width)
    if mode() != "off":

        def one_tile(tile: Any, none: None) -> None:
            for work in each_tile:
                work(tile)

        jax.lax.fori_loop(0, count, one_tile, None)
        return jax.lax.fori_loop(0, GROUP, each_row, row)
    done = 0
    for tile in range(count):
        for work in each_tile:
            work(tile)
        while done < GROUP * (tile + 1) // count:
            row = each_row(done, row)
            done += 1
    return row


def every_tile(width: int, *works: Callable[[Any], None]) -> None:
    """Run each work on every tile."""

    def one_tile(tile: Any, none: None) -> None:
        for work in works:
            work(tile)

    if mode() != "off":
        jax.lax.fori_loop(0, tiles_of(width), one_tile, None)
        return
    for tile in range(tiles_of(width)):
        one_tile(tile, None)


def _pieces(width: int) -> Iterator[tuple[int, int]]:
    count = tiles_of(width)
    for start in range(0, count, SUBLANES):
        yield start, min(SUBLANES, count - start)
