"""Tuples of rows: where they lie, loads and stores, marks, and exchanges between the segments of a tile.

Only builtins of ``triton.language`` are used in this folder: its own jitted helpers (``tl.sum``, ``tl.zeros``) are
compiled or interpreted by a choice made when Triton is imported, not by ours.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .special import narrow


@triton.jit
def load_rows(
    start, stride: tl.constexpr, first, time, inside, ROWS: tl.constexpr, WHOLE: tl.constexpr, OTHER: tl.constexpr
):
    """``ROWS`` rows of [segments, width] from the pointers ``start``; ``OTHER`` after the end of time.

    Args:
        start: pointers [segments, width] of the first row.
        stride: elements from a token to the next.
        first: int32 [segments], the token of the first row.
        inside: bool [1, width], which channels there are.
        WHOLE: every token and channel is there.
    """
    rows = ()
    for s in tl.static_range(ROWS):
        if WHOLE:
            rows = rows + (tl.load(start + s * stride),)
        else:
            mask = (first + s < time)[:, None] & inside
            rows = rows + (tl.load(start + s * stride, mask=mask, other=OTHER),)
    return rows


@triton.jit
def load_inputs(
    x, y, z, x_time: tl.constexpr, y_time: tl.constexpr, z_time: tl.constexpr, first, time, inside,
    ROWS: tl.constexpr, WHOLE: tl.constexpr, CELL: tl.constexpr,
):  # fmt: skip
    """The three inputs of a cell from the pointers to their first rows; after the end of time the state stays."""
    xs = load_rows(x, x_time, first, time, inside, ROWS, WHOLE, 0.0)
    if CELL != "linear":
        ys = load_rows(y, y_time, first, time, inside, ROWS, WHOLE, 0.0)
        zs = load_rows(z, z_time, first, time, inside, ROWS, WHOLE, float("-inf"))
    else:
        ys = xs
        zs = load_rows(z, z_time, first, time, inside, ROWS, WHOLE, 0.0)
    return xs, ys, zs


@triton.jit
def store_row(
    start, stride: tl.constexpr, s: tl.constexpr, value, first, time, inside, WHOLE: tl.constexpr, BODY: tl.constexpr
):
    """Write row ``s`` in the array's dtype."""
    value = narrow(value, start.dtype.element_ty, BODY)
    if WHOLE:
        tl.store(start + s * stride, value)
    else:
        tl.store(start + s * stride, value, mask=(first + s < time)[:, None] & inside)


@triton.jit
def load_marks(marks, begins, first, time, ROWS: tl.constexpr, MARKS: tl.constexpr, PACKED: tl.constexpr):
    """The marks of ``ROWS`` rows, int32 [segments, 1]: 0 starts a document, -1 is padding, so is what follows the end.

    ``MARKS`` is "positions" (int32 [t]), "reset" (bool [t]), "start" (the first token of a sequence starts one) or
    "none".
    """
    rows = ()
    for s in tl.static_range(ROWS):
        if MARKS == "positions":
            found = tl.load(marks + first + s, mask=first + s < time, other=-1)
        elif MARKS == "reset":
            found = 1 - tl.load(marks + first + s, mask=first + s < time, other=0).to(tl.int32)
        elif MARKS == "start" and PACKED:
            found = tl.where(begins[s] >= 0, 0, 1)
        elif MARKS == "start":
            found = first + s
        else:
            found = tl.full(first.shape, 1, tl.int32)
        rows = rows + (found[:, None],)
    return rows


@triton.constexpr_function
def is_marked(s, MARKS, PACKED):
    """Whether row ``s`` of a segment can start a document, as a constant, which a jitted function cannot return."""
    return MARKS == "positions" or MARKS == "reset" or (MARKS == "start" and (PACKED or s == 0))


@triton.jit
def load_sequences(sequences, first, time, ROWS: tl.constexpr, PACKED: tl.constexpr):
    """For each row the sequence that begins (or ends) there, int32 [segments], -1 where none does."""
    rows = ()
    for s in tl.static_range(ROWS):
        if PACKED:
            rows = rows + (tl.load(sequences + first + s, mask=first + s < time, other=-1),)
    return rows


@triton.jit
def add(a, b):
    return a + b


@triton.jit
def place(ticket, width, batch, SEGMENTS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, TAKE: tl.constexpr):
    """(tile, row of the batch, channels [1, width], index [segments], first token of each segment) of this program.

    Programs count channels first, then the batch, then time: one that waits for an earlier tile has a later number.
    ``TAKE``: the number is a ticket, so that those with earlier numbers run already; else it is the program's own.
    """
    number = tl.program_id(0)
    if TAKE:
        number = tl.atomic_add(ticket, 1, sem="relaxed").to(tl.int32)
    blocks = (width + WIDTH - 1) // WIDTH
    tile = number // (blocks * batch)
    row = (number // blocks) % batch
    channels = ((number % blocks) * WIDTH + tl.arange(0, WIDTH))[None, :]
    index = tl.arange(0, SEGMENTS)
    return tile, row.to(tl.int64), channels, index, tile * (SEGMENTS * ROWS) + index * ROWS


@triton.jit
def pointers(array, batch_stride, stride: tl.constexpr, row, first, channels):
    """[segments, width] pointers to the first row of each segment."""
    return array + row * batch_stride + first.to(tl.int64)[:, None] * stride + channels
