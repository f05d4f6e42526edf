"""How a call [b t d] is cut among the programs of a GPU: pure functions of the shape and the operation.

A program holds a tile of ``segments`` x ``rows`` tokens and ``width`` channels, a segment in each warp. Tiles of one
row and one channel block form a chain, along which the state is handed on; many chains run side by side.

The constants are ASSUMPTIONS, public figures of an H100: they rank plans, they promise no time.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from griffin_core.errors import ConfigError, InputError

Carry = Literal["exact", "aggregate", "given"]

BANDWIDTH = 3.0e6
"""Bytes per microsecond that all programs together can move."""
HOP = 1.2
"""Microseconds from publishing a state to its arrival in another program."""
STEP = 4 / 1.755e3
"""Microseconds of one dependent multiply-add."""
EXCHANGE = 0.06
"""Microseconds in which a warp's result reaches the others of its program."""
SLACK = 0.6
"""A chain may take this part of the time that moving the bytes takes; beyond, it may become what is waited for."""


@dataclass(frozen=True)
class Plan:
    """One way to cut a call.

    Attributes:
        rows: tokens of a segment, a power of two.
        segments: of a tile, one a warp, a power of two.
        width: channels of a program, a power of two.
        carry: how a tile finds the state it hands on; "given": it does not, the states are found before.
        again: rows of the inputs that the backward pass reads again at a time.
    """

    rows: int
    segments: int
    width: int = 64
    carry: Carry = "exact"
    again: int = 2

    def __post_init__(self) -> None:
        for name in ("rows", "segments", "width", "again"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ConfigError(f"{name} of a plan is {value}; expected a power of two")

    @property
    def tokens(self) -> int:
        """Tokens of a tile."""
        return self.rows * self.segments

    def tiles(self, time: int) -> int:
        """Tiles of ``time`` tokens."""
        return -(-time // self.tokens)

    def programs(self, shape: tuple[int, int, int]) -> int:
        """Programs for [b t d]."""
        return shape[0] * self.tiles(shape[1]) * -(-shape[2] // self.width)


FORWARD_ROWS = {False: 32, True: 16}
"""Rows of a forward segment, by whether each has a mark of its own: so many fit into a warp's registers."""
BACKWARD_ROWS = {2: 16, 4: 8}
"""Rows of a backward segment by bytes of an element, and tokens between the states that it starts from."""
PACKED_ROWS = 8
"""The same for packed sequences, of which every token may be a first and a last one."""


CONV_ROWS = {False: 32, True: 16}
"""Rows of a segment of the convolution, by whether it is the backward pass."""
CONV_SEGMENTS = 4


_fixed: Plan | None = None  # of the process: a context variable could not be read in compiled code


@contextlib.contextmanager
def fixed(plan: Plan) -> Iterator[None]:
    """Cut every pass inside the block as ``plan`` says, its carry excepted: to tune, and to prove with small tiles."""
    global _fixed
    before, _fixed = _fixed, plan
    try:
        yield
    finally:
        _fixed = before


def saved_rows(itemsize: int, packed: bool = False) -> int:
    """Tokens between the states that a forward pass saves for the backward pass: the rows of its segments."""
    if _fixed is not None:
        return _fixed.rows
    return PACKED_ROWS if packed else BACKWARD_ROWS[itemsize]


def forward_plan(shape: tuple[int, ...], itemsize: int, carry: Carry | None = None, marked: bool = False) -> Plan:
    """Cut a forward pass.

    Args:
        shape: (b, t, d), each at least 1.
        itemsize: bytes of an element.
        marked: documents may start at any token: it has positions, resets or packed sequences.
        carry: which one; None takes "exact" where the chain is not what is waited for, else "aggregate".

    Raises:
        InputError: the shape is empty or not (b, t, d).
    """
    batch, time, width = _checked(shape)
    if _fixed is not None:
        return dataclasses.replace(_fixed, carry=carry or "aggregate")
    rows = min(FORWARD_ROWS[marked], max(*BACKWARD_ROWS.values(), _power(time)))
    segments = min(8 if batch * width < 8192 else 4, _power(-(-time // rows)))
    if carry is None:
        moving = 4 * itemsize * batch * width * rows * segments / BANDWIDTH
        carry = "exact" if exact_hop(rows, segments) <= SLACK * moving else "aggregate"
    return Plan(rows, segments, carry=carry)


def backward_plan(shape: tuple[int, ...], rows: int, carry: Carry = "aggregate") -> Plan:
    """Cut a backward pass, whose segments have as many ``rows`` as there are tokens between saved states.

    Raises:
        InputError: the shape is empty or not (b, t, d).
    """
    _, time, _ = _checked(shape)
    if _fixed is not None:
        return dataclasses.replace(_fixed, rows=rows, carry=carry)
    return Plan(rows, min(8, _power(-(-time // rows))), carry=carry)


BLOCK_WIDTH, MATRIX = 64, 16
"""Of the RG-LRU with its gates' products: channels of a program; the least that matrix units take."""


def block_plan(shape: tuple[int, ...], block: int, rows: int) -> Plan:
    """Cut a pass of the RG-LRU with its gates' products, forward or backward.

    Args:
        block: channels of a gate block, which no program crosses.
        rows: tokens between saved states.
    """
    _, time, _ = _checked(shape)
    if _fixed is not None:
        return dataclasses.replace(_fixed, carry="aggregate")
    segments = max(min(8, _power(-(-time // rows))), MATRIX // rows)
    widest = BLOCK_WIDTH // 2 if rows == PACKED_ROWS else BLOCK_WIDTH  # every token may start and end a sequence
    return Plan(rows, segments, max(min(widest, _power(block)), MATRIX), "aggregate")


def conv_plan(shape: tuple[int, ...], back: bool = False) -> Plan:
    """Cut a pass of the convolution: tiles do not wait for each other, and read a few tokens of their neighbours."""
    _, time, _ = _checked(shape)
    if _fixed is not None:
        return _fixed
    rows = min(CONV_ROWS[back], _power(time))
    return Plan(rows, min(CONV_SEGMENTS, _power(-(-time // rows))))


def exact_hop(rows: int, segments: int) -> float:
    """Microseconds in which a state passes a tile token by token, and reaches the next."""
    return HOP + segments * (rows * STEP + EXCHANGE)


def _checked(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"a kernel was asked for shape {tuple(shape)}; expected (b, t, d), each at least 1")
    return shape[0], shape[1], shape[2]


def _power(length: int) -> int:
    """The least power of two that is not less."""
    return 1 << (length - 1).bit_length()
