"""Cutting a batch into documents, and documents into query blocks: who attends to whom, as host integers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from griffin_core.checks import PAD

SCORE_ELEMENTS = 1 << 18
"""Elements of one block of scores (1 MiB of float32)."""
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 256
"""Queries per block, at least and at most."""


@dataclass(frozen=True)
class Segment:
    """Queries of one document, in rows that share its place.

    Attributes:
        rows: the rows of the batch.
        first_key: where the document's keys start (in keys with the cached ones in front).
        start, stop: its queries.
        offset: query i stands at key i + offset.
    """

    rows: slice
    first_key: int
    start: int
    stop: int
    offset: int


def segments(positions: Tensor | None, batch: int, time: int, past: int) -> list[Segment]:
    """The documents of right-padded rows.

    Args:
        positions: int [b t] on the host; None is one document that starts at key 0.
        past: cached keys in front of the row's own.
    """
    if positions is None:
        return [Segment(slice(0, batch), 0, 0, time, past)]
    if not time:
        return []
    rows = [_row(values, past) for values in positions.tolist()]
    if all(row == rows[0] for row in rows):
        return [Segment(slice(0, batch), *cut, past) for cut in rows[0]]
    return [Segment(slice(i, i + 1), *cut, past) for i, row in enumerate(rows) for cut in row]


def _row(positions: list[int], past: int) -> list[tuple[int, int, int]]:
    """(first_key, start, stop) of each document of one row."""
    real = next((t for t, p in enumerate(positions) if p == PAD), len(positions))
    if not real:  # a row of padding alone, such as a finished row of a batch that decodes on
        return []
    starts = [t for t, p in enumerate(positions[:real]) if p == 0]
    cuts = [] if starts[:1] == [0] else [(max(0, past - positions[0]), 0)]
    cuts += [(past + t, t) for t in starts]
    stops = [t for _, t in cuts[1:]] + [real]
    return [(first, start, stop) for (first, start), stop in zip(cuts, stops, strict=True)]


@dataclass(frozen=True)
class Block:
    """Queries [start, stop) that see keys [first, stop + offset), each only its own band."""

    start: int
    stop: int
    first: int
    last: int


def blocks(segment: Segment, heads: int, window: int | None) -> list[Block]:
    """The query blocks of a segment: sized so that a block's scores stay in cache."""
    reach = segment.stop + segment.offset - segment.first_key
    seen = reach if window is None else min(window, reach)
    count = (segment.rows.stop - segment.rows.start) * heads
    size = max(SMALLEST_BLOCK, min(LARGEST_BLOCK, SCORE_ELEMENTS // max(1, seen * count)))
    found = []
    for start in range(segment.start, segment.stop, size):
        stop = min(start + size, segment.stop)
        first = segment.first_key
        if window is not None:
            first = max(first, start + segment.offset - window + 1)
        found.append(Block(start, stop, first, stop + segment.offset))
    return found
