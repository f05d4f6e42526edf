"""The forward pass: every tensor is touched once, time is cut into tiles, and a tile hands its last state to the next.

A program holds a tile of ``SEGMENTS`` x ``ROWS`` tokens and ``WIDTH`` channels in registers, segment g in warp g. It
finds a and u of every token, takes the state that comes in, hands on the one that goes out, and then writes h.
``CARRY`` says how the outgoing state is found:

- "exact": token after token, as one loop over all of time would, so that no tiling changes a bit. The segments run one
  after another: all warps run the same tokens of their own segment ``SEGMENTS`` times, and the last time counts.
- "aggregate": exp(sum log a) of the tile times the incoming state, plus the state from zero; ready at once.
- "given": the incoming states are there, from ``totals``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .cells import enter
from .rows import add, is_marked


@triton.jit
def entries(
    xs, ys, zs, marks, begins, h0, channels, inside, rate, width,
    ROWS: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr, HAS_H0: tl.constexpr,
    CELL: tl.constexpr, BODY: tl.constexpr,
):  # fmt: skip
    """(log2 a, a, u, cut) of every row; where cut, h = u whatever came before, and log2 a says nothing."""
    logs, decays, inputs, cuts = (), (), (), ()
    for s in tl.static_range(ROWS):
        t, a, fresh, u = enter(xs[s], ys[s], zs[s], rate, CELL, BODY)
        cut = marks[s] == 0
        if is_marked(s, MARKS, PACKED):
            u = tl.where(cut, fresh, u)
        if MARKS == "positions":
            if CELL != "half":  # there the gate is closed
                t = tl.where(marks[s] < 0, 0.0, t)
                a = tl.where(marks[s] < 0, 1.0, a)
            u = tl.where(marks[s] < 0, 0.0, u)
        if PACKED:
            begin = begins[s][:, None]
            if HAS_H0:
                there = (begin >= 0) & inside
                h = tl.load(h0 + begin.to(tl.int64) * width + channels, mask=there, other=0.0)
                u = tl.where((begin >= 0) & (marks[s] != 0), tl.fma(a, h, u), u)
            cut = cut | (begin >= 0)
        logs, decays, inputs, cuts = logs + (t,), decays + (a,), inputs + (u,), cuts + (cut,)
    return logs, decays, inputs, cuts


@triton.jit
def advance(h, decays, inputs, cuts, s: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr):
    """h after row ``s``."""
    after = tl.fma(decays[s], h, inputs[s])
    if is_marked(s, MARKS, PACKED) or PACKED:
        after = tl.where(cuts[s], inputs[s], after)
    return after


@triton.jit
def advance_all(h, decays, inputs, cuts, ROWS: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr):
    """h after all rows."""
    for s in tl.static_range(ROWS):
        h = advance(h, decays, inputs, cuts, s, MARKS, PACKED)
    return h


@triton.jit
def add_up(logs, cuts, ROWS: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr):
    """The sum of log2 a over a segment; -inf where a token cuts it, whatever stands beside it."""
    total = logs[0]
    for s in tl.static_range(1, ROWS):
        total += logs[s]
    if is_marked(0, MARKS, PACKED) or PACKED:
        cut = cuts[0]
        if MARKS != "start" or PACKED:
            for s in tl.static_range(1, ROWS):
                cut = cut | cuts[s]
        total = tl.where(cut, float("-inf"), total)
    return total


@triton.jit
def starts_exact(
    c, index, decays, inputs, cuts,
    SEGMENTS: tl.constexpr, ROWS: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """h before each segment [segments, width] and, in the last, after it, as one loop over all tokens gives them."""
    starts = c
    after = advance_all(starts, decays, inputs, cuts, ROWS, MARKS, PACKED)
    for k in tl.static_range(1, SEGMENTS):
        before = tl.reduce(tl.where(index[:, None] == k - 1, after, 0.0), 0, add)
        starts = tl.where(index[:, None] == k, before[None, :], starts)
        after = advance_all(starts, decays, inputs, cuts, ROWS, MARKS, PACKED)
    return starts, after


@triton.jit
def from_zero(decays, inputs, cuts, ROWS: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr):
    """h after each segment when nothing comes in: [segments, width]."""
    return advance_all(tl.full(decays[0].shape, 0.0, tl.float32), decays, inputs, cuts, ROWS, MARKS, PACKED)


@triton.jit
def join(total, state, before):
    """The state after a stretch of tokens whose log2 a add up to ``total`` and that gives ``state`` from zero.

    Where the stretch cuts, nothing of ``before`` comes through, NaN included.
    """
    return tl.where(total == float("-inf"), state, tl.fma(tl.exp2(total), before, state))


@triton.jit
def joined(total, state, next_total, next_state):
    """Two stretches as one."""
    cut = (total == float("-inf")) | (next_total == float("-inf"))
    return tl.where(cut, float("-inf"), total + next_total), join(next_total, next_state, state)


@triton.jit
def shifted(after, c, index, SEGMENTS: tl.constexpr, GATHER: tl.constexpr):
    """What stands before each segment, from what stands after each and ``c`` before the first; [segments, width].

    ``GATHER`` needs few registers, but Triton takes the layout that it likes for all that follows, and computes the
    inputs of the recurrence twice where that is not theirs.
    """
    if SEGMENTS == 1:
        found = c
    elif GATHER:
        source = tl.broadcast_to(tl.maximum(index - 1, 0)[:, None], after.shape)
        found = tl.where(index[:, None] == 0, c, tl.gather(after, source, 0))
    else:
        before = index[:, None] == tl.arange(0, SEGMENTS)[None, :] + 1  # [to, from]
        found = tl.reduce(tl.where(before[:, :, None], after[None, :, :], 0.0), 1, add)
        found = tl.where(index[:, None] == 0, c, found)
    return found
