"""How a kernel cuts [b t d] into blocks: a pure function of operation, direction, shape, dtype and chip.

A block is block_time x block_width; the grid is (batch, width tiles, time blocks), the last one in order. Blocks
may hang over the end of time or width: what hangs over is garbage that the kernel masks in time (``marks``) and
that is never written back in width. The choice is the least of a small cost model, among blocks that fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import jax.numpy as jnp

from griffin_core.errors import ConfigError, InputError, nearest
from griffin_core_jax.tpu.chips import MIB, Chip

GROUP = 16
"""Rows that a kernel's inner loop takes at once: one packed tile of a 16-bit dtype, two of a 32-bit one."""
LANES, SUBLANES = 128, 8
REGISTER = LANES * SUBLANES
RESERVE = 2 * MIB
"""VMEM left to the compiler for what it spills and for its own buffers; no kernel's plan touches it."""
STEP_CYCLES = 600.0
"""Cost of starting a grid step: what the compiler's static model charges on v5e, where it is dearest."""
OVERLAP = 0.125
"""The share of the faster of transfer and compute that is taken to show: they overlap, but not wholly."""
LARGEST_TIME = 1024
MODEST = 32 * MIB
"""The most VMEM that a plan takes where there is more: beyond it blocks gain nothing, and XLA prefetches into the rest.
"""


@dataclass(frozen=True)
class Traffic:
    """What one grid step of a kernel holds in VMEM and computes.

    Attributes:
        stored: [b t d] arrays read or written in the call's dtype (two buffers each).
        wide: [b t d] arrays read or written in float32 (two buffers each).
        vectors: float32 rows [1 block_width] read or written (two buffers each, padded to 8 rows).
        group_scratch: float32 scratch arrays [GROUP block_width].
        block_scratch: float32 scratch arrays [block_time block_width].
        cycles: what 1024 elements add to the bundles of a row; with ``latency`` it ranks blocks, it promises nothing.
        latency: bundles that a row takes however narrow it is.
        largest_width: widest block that the inner loop is written for.
    """

    stored: int
    wide: int = 0
    vectors: int = 2
    group_scratch: int = 0
    block_scratch: int = 0
    cycles: float = 8.0
    latency: float = 3.0
    largest_width: int = 4096

    def vmem_bytes(self, block_time: int, block_width: int, itemsize: int) -> int:
        """VMEM of a grid step: double-buffered blocks and scratch."""
        block = block_time * block_width
        buffers = 2 * block * (self.stored * itemsize + 4 * self.wide) + 2 * self.vectors * SUBLANES * 4 * block_width
        scratch = 4 * self.block_scratch * block + 4 * self.group_scratch * GROUP * block_width
        return buffers + scratch + 4 * SUBLANES * block_width  # the last: the carry

    def moved_bytes(self, block_time: int, block_width: int, itemsize: int) -> int:
        """HBM bytes that a grid step reads and writes."""
        return block_time * block_width * (self.stored * itemsize + 4 * self.wide)


TRAFFIC: dict[tuple[str, str], Traffic] = {
    # x, log_a -> y
    ("linear_scan", "forward"): Traffic(stored=3, vectors=3, group_scratch=2, cycles=4.0),
    # x, log_a, dy -> dx, dlog_a
    ("linear_scan", "backward"): Traffic(
        stored=5, vectors=3, group_scratch=3, block_scratch=2, cycles=9.0, latency=6.0
    ),
    # x, gate_x, gate_a -> y
    ("gated_scan", "forward"): Traffic(stored=4, vectors=4, group_scratch=9, cycles=12.5),
    # x, gate_x, gate_a, dy -> dx, dgate_x, dgate_a
    ("gated_scan", "backward"): Traffic(
        stored=7, vectors=6, group_scratch=9, block_scratch=8, cycles=18.0, latency=8.0
    ),
}
"""What each kernel holds in VMEM; a kernel that holds more must say so here, since the choice of blocks trusts it."""


@dataclass(frozen=True)
class Tiling:
    """One choice of blocks.

    Attributes:
        block_time: rows of a block, a multiple of ``GROUP``.
        block_width: channels of a block, a multiple of 128.
        grid: (batch, width tiles, time blocks).
        vmem_bytes: VMEM that a grid step needs.
        vmem_limit: what to pass as ``vmem_limit_bytes``; None is the chip's default.
    """

    block_time: int
    block_width: int
    grid: tuple[int, int, int]
    vmem_bytes: int
    vmem_limit: int | None

    def __post_init__(self) -> None:
        if self.block_time < GROUP or self.block_time % GROUP:
            raise ConfigError(f"block_time is {self.block_time}; expected a positive multiple of {GROUP}")
        if self.block_width < LANES or self.block_width % LANES:
            raise ConfigError(f"block_width is {self.block_width}; expected a positive multiple of {LANES}")
        if len(self.grid) != 3 or min(self.grid) < 1:
            raise ConfigError(f"grid is {self.grid}; expected three positive numbers")

    @property
    def groups(self) -> int:
        """Groups of rows in a block."""
        return self.block_time // GROUP


def tiling(operation: str, direction: str, shape: tuple[int, ...], dtype: object, chip: Chip) -> Tiling:
    """Choose blocks for one call.

    Args:
        operation, direction: a key of ``TRAFFIC``.
        shape: (b, t, d), each at least 1.
        dtype: the widest dtype of the call's [b t d] arrays: float32 or bfloat16.
        chip: the generation to fit.

    Returns:
        The blocks of least modelled cost among those that fit the chip's VMEM.

    Raises:
        ConfigError: no such operation and direction.
        InputError: the shape is empty or not (b, t, d).
    """
    if (operation, direction) not in TRAFFIC:
        known = [" ".join(key) for key in TRAFFIC]
        raise ConfigError(f"no kernel {operation!r} {direction!r}; {nearest(f'{operation} {direction}', known)}")
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"a kernel was asked for shape {tuple(shape)}; expected (b, t, d), each at least 1")
    traffic, itemsize = TRAFFIC[operation, direction], jnp.dtype(dtype).itemsize  # type: ignore[arg-type]
    best, least = None, inf
    for block_time, block_width in _candidates(shape, traffic.largest_width):
        found = fixed(operation, direction, shape, dtype, chip, block_time, block_width)
        cost = modelled_cycles(traffic, found, itemsize, chip)
        if found.vmem_bytes <= min(MODEST, chip.vmem_limit - RESERVE) and cost < least:
            best, least = found, cost
    if best is None:  # the narrowest block is 16 x 128: a row of TRAFFIC would have to be absurd
        raise ConfigError(f"no block of {operation} {direction} fits {chip.name}; lower its row of TRAFFIC")
    return best


def fixed(
    operation: str,
    direction: str,
    shape: tuple[int, ...],
    dtype: object,
    chip: Chip,
    block_time: int,
    block_width: int,
) -> Tiling:
    """The record of blocks chosen by hand (tests and comparisons of blocks)."""
    itemsize = jnp.dtype(dtype).itemsize  # type: ignore[arg-type]
    need = TRAFFIC[operation, direction].vmem_bytes(block_time, block_width, itemsize)
    grid = (shape[0], _blocks(shape[2], block_width), _blocks(shape[1], block_time))
    limit = None if need + RESERVE <= chip.vmem_default else min(need + RESERVE, chip.vmem_limit)
    return Tiling(block_time, block_width, grid, need, limit)


def modelled_cycles(traffic: Traffic, tiles: Tiling, itemsize: int, chip: Chip) -> float:
    """What a choice costs by the model: its steps, each about the slower of transfer and compute, and a first transfer.

    It ranks blocks; it is no estimate of time.
    """
    batch, widths, times = tiles.grid
    steps = _blocks(batch * widths, chip.cores) * times
    transfer = traffic.moved_bytes(tiles.block_time, tiles.block_width, itemsize) / chip.bytes_per_cycle
    compute = tiles.block_time * (traffic.latency + traffic.cycles * tiles.block_width / REGISTER)
    return steps * (max(transfer, compute) + OVERLAP * min(transfer, compute) + STEP_CYCLES) + transfer


def _candidates(shape: tuple[int, ...], largest_width: int) -> Iterator[tuple[int, int]]:
    """Even cuts of the width, and powers of two in time."""
    _, time, width = shape
    widths = {_round_up(_blocks(width, n), LANES) for n in range(1, _blocks(width, LANES) + 1)}
    longest = min(LARGEST_TIME, _round_up(time, GROUP))
    times = {min(longest, GROUP * 2**i) for i in range((LARGEST_TIME // GROUP).bit_length())}
    for block_width in sorted(widths, reverse=True):
        if block_width <= largest_width:
            for block_time in sorted(times, reverse=True):
                yield block_time, block_width


def _blocks(length: int, block: int) -> int:
    return -(-length // block)


def _round_up(length: int, multiple: int) -> int:
    return _blocks(length, multiple) * multiple
