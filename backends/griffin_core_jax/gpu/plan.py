"""How a call [b t d] is cut among the programs of a GPU: a pure function of the shape and the operation.

A program owns ``width`` channels of one row of the batch over ``tiles`` tiles of ``rows`` tokens; the grid is
(channel blocks, stretches of time, batch). Either one stretch is all of time and every tensor is touched once, or
there are several and what a stretch does to the state is found first, by reading some inputs a second time.

The choice is the least of a small cost model. Its constants are ASSUMPTIONS (public figures of an H100, instruction
counts of compiled kernels): it ranks plans, it promises no time.
"""

from __future__ import annotations

from dataclasses import dataclass

from griffin_core.errors import ConfigError, InputError, nearest

WIDTH = 64
"""Channels of a program of one warp: two for each thread, so that a row of a 16-bit dtype is one full cache line."""
WARPS = 1
BANDWIDTH = 3.0e6
"""Bytes per microsecond that all programs together can move."""
SCHEDULERS = 528
"""Warps that issue instructions at once."""
RESIDENT = 2112
"""Programs of one warp that are on the GPU at once with the registers these kernels take."""
LATENCY = 0.65
"""Microseconds from a load to its value."""
ISSUE = 1.7e3
"""Instructions that a scheduler issues in a microsecond."""
LAUNCH = 3.0
"""Microseconds that one more kernel costs."""
LEAST_TILES = 4
"""A stretch has at least so many tiles: below, what a program does once outweighs what it does in time."""


@dataclass(frozen=True)
class Work:
    """What one direction of an operation moves and computes for each element.

    Attributes:
        rows: tokens of a tile.
        moved: [b t d] arrays read and written.
        again: [b t d] arrays that are read a second time when time is cut.
        instructions: of a thread for each element, counted in the inner loop that Triton 3.7 compiles for sm_90 in
            bfloat16.
    """

    rows: int
    moved: int
    again: int
    instructions: int


WORK: dict[tuple[str, str], Work] = {
    ("linear_scan", "forward"): Work(rows=16, moved=3, again=2, instructions=28),
    ("linear_scan", "backward"): Work(rows=8, moved=5, again=2, instructions=43),
    ("gated_scan", "forward"): Work(rows=16, moved=4, again=3, instructions=72),
    ("gated_scan", "backward"): Work(rows=8, moved=7, again=2, instructions=104),
}


@dataclass(frozen=True)
class Plan:
    """One way to cut a call.

    Attributes:
        rows: tokens of a tile, a power of two.
        tiles: tiles of a stretch of time.
        stretches: of time; 1 touches every tensor once.
        width: channels of a program, a power of two.
        warps: of a program.
    """

    rows: int
    tiles: int
    stretches: int
    width: int = WIDTH
    warps: int = WARPS

    def __post_init__(self) -> None:
        for name in ("rows", "width", "warps"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ConfigError(f"{name} is {value}; expected a power of two")
        if self.tiles < 1 or self.stretches < 1:
            raise ConfigError(f"{self.tiles} tiles in {self.stretches} stretches; expected at least one of each")

    @property
    def tokens(self) -> int:
        """Tokens of a stretch."""
        return self.rows * self.tiles

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(channel blocks, stretches, batch) for [b t d]."""
        return _pieces(shape[2], self.width), self.stretches, shape[0]


def plan(operation: str, direction: str, shape: tuple[int, ...], itemsize: int) -> Plan:
    """Cut one call.

    Args:
        operation, direction: a key of ``WORK``.
        shape: (b, t, d), each at least 1.
        itemsize: bytes of an element of the widest [b t d] array.

    Returns:
        The plan of least modelled time; of equals the one with fewest stretches.

    Raises:
        ConfigError: no such operation and direction.
        InputError: the shape is empty or not (b, t, d).
    """
    if (operation, direction) not in WORK:
        known = [" ".join(key) for key in WORK]
        raise ConfigError(f"no kernel {operation!r} {direction!r}; {nearest(f'{operation} {direction}', known)}")
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"a kernel was asked for shape {tuple(shape)}; expected (b, t, d), each at least 1")
    work = WORK[operation, direction]
    rows = min(work.rows, 1 << (shape[1] - 1).bit_length())
    whole = _pieces(shape[1], rows)
    cuts = [1]
    while whole // (2 * cuts[-1]) >= LEAST_TILES:
        cuts.append(2 * cuts[-1])
    lengths = [_pieces(whole, cut) for cut in cuts]
    found = [Plan(rows, tiles, _pieces(whole, tiles)) for tiles in lengths]
    return min(found, key=lambda plan: modelled_time(work, plan, shape, itemsize))


def modelled_time(work: Work, plan: Plan, shape: tuple[int, ...], itemsize: int) -> float:
    """Microseconds by the model: what memory or the programs take, whichever is longer, and the launches."""
    size = shape[0] * shape[1] * shape[2] * itemsize
    widths, stretches, batch = plan.grid(shape)
    again = work.again / work.moved if stretches > 1 else 0.0
    launches = 3 if stretches > 1 else 1
    moving = (1.0 + again) * work.moved * size / BANDWIDTH
    steps = (1.0 + again) * plan.tiles
    return max(moving, steps * _waves(work, plan, widths * stretches * batch)) + launches * LAUNCH


def _waves(work: Work, plan: Plan, programs: int) -> float:
    """Microseconds of one tile of every program."""
    issue = plan.rows * work.instructions * plan.width / 32 / ISSUE
    waves, rest = divmod(programs, RESIDENT)
    full = max(LATENCY, RESIDENT / SCHEDULERS * issue)
    return waves * full + (max(LATENCY, _pieces(rest, SCHEDULERS) * issue) if rest else 0.0)


def _pieces(length: int, piece: int) -> int:
    return -(-length // piece)
