"""The backward pass, tiles last first:  g_t = dy_t + e_t,  e_{t-1} = a_t g_t  (0 where a document starts at t).

A segment runs forward from the state saved before it, to know the state before every token; then back, from the e that
comes from after it. Segments are held in reverse: the last tokens of the tile in segment 0. Gates are computed again,
nothing [b t d] is kept: not in memory, and not in registers, which hold a and the states of a tile; its inputs are read
a second time on the way back, from the first-level cache. e travels between tiles as h does in ``forward``, always as
exp(sum log a) times what comes in, plus what the tile gives from zero.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .cells import gradients
from .forward import advance
from .rows import is_marked, load_sequences


@triton.jit
def states_before(
    spot, first, time, inside, decays, inputs, cuts, ROWS: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr
):
    """The state before every row, from the one saved at ``spot``; at a cut it is not what the row sees."""
    rows = ()
    h = tl.load(spot, mask=(first < time)[:, None] & inside, other=0.0)
    for s in tl.static_range(ROWS):
        rows = rows + (h,)
        h = advance(h, decays, inputs, cuts, s, MARKS, PACKED)
    return rows


@triton.jit
def cotangents(
    dys, marks, ends, dlast, first, time, channels, inside, width,
    ROWS: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """dy of every row in float32: 0 at padding, and with the cotangent of the last state where a sequence ends."""
    rows = ()
    ending = load_sequences(ends, first, time, ROWS, PACKED)
    for s in tl.static_range(ROWS):
        value = dys[s].to(tl.float32)
        if MARKS == "positions":
            value = tl.where(marks[s] < 0, 0.0, value)
        if PACKED:
            end = ending[s].to(tl.int64)[:, None]
            at = dlast + end * width + channels
            value += tl.load(at, mask=(end >= 0) & inside, other=0.0)
        rows = rows + (value,)
    return rows


@triton.jit
def retreat(g, decays, cuts, s: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr):
    """What row ``s`` hands to the row before it."""
    e = decays[s] * g
    if is_marked(s, MARKS, PACKED) or PACKED:
        e = tl.where(cuts[s], 0.0, e)
    return e


@triton.jit
def from_zero_back(dys, decays, cuts, ROWS: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr):
    """e before each segment when nothing comes in from after it: [segments, width]."""
    e = tl.full(decays[0].shape, 0.0, tl.float32)
    for s in tl.static_range(ROWS - 1, -1, -1):
        e = retreat(dys[s] + e, decays, cuts, s, MARKS, PACKED)
    return e


@triton.jit
def row_gradients(
    x, y, z, mark, begin, h0, channels, inside, rate, width, a, g, before, s: tl.constexpr,
    MARKS: tl.constexpr, PACKED: tl.constexpr, HAS_H0: tl.constexpr, CELL: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """(dx, dy, dz, gradient of log a) of row ``s``, 0 at padding."""
    marked: tl.constexpr = "some" if is_marked(s, MARKS, PACKED) else "none"
    if PACKED:
        there = begin >= 0
        if HAS_H0:
            at = h0 + begin.to(tl.int64) * width + channels
            first = tl.load(at, mask=there & inside, other=0.0)
        else:
            first = 0.0
        before = tl.where(there, first, before)
    dx, dy, dz, through = gradients(x, y, z, rate, a, g, before, mark == 0, marked, CELL, BODY)
    if MARKS == "positions":
        dx, dy = tl.where(mark < 0, 0.0, dx), tl.where(mark < 0, 0.0, dy)
        dz, through = tl.where(mark < 0, 0.0, dz), tl.where(mark < 0, 0.0, through)
    return dx, dy, dz, through
