"""What ``starts`` means: n sequences packed in one row are n calls, joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from griffin_core.checks import check_starts
from griffin_core.errors import InputError
from griffin_core.shapes import Array


def by_sequence(
    operation: Callable[..., tuple[Array, ...]],
    starts: Array,
    timed: tuple[Array | None, ...],
    per_row: tuple[Array | None, ...],
) -> tuple[Array, ...]:
    """Run an operation on each sequence packed in one row: this is what ``starts`` means.

    Args:
        operation: called with the pieces of ``timed`` and then those of ``per_row``.
        starts: int [n+1], where each sequence starts, and the end.
        timed: arrays [1 t ...], cut along time.
        per_row: arrays [n ...], cut along axis 0.

    Returns:
        The first output joined along time, the others along axis 0.
    """
    outputs = list(zip(*(operation(*args) for args in _cut(starts, timed, per_row)), strict=True))
    return (np.concatenate(outputs[0], axis=1), *(np.concatenate(rest, axis=0) for rest in outputs[1:]))


def gradients_by_sequence(
    vjp: Callable[..., tuple[Any, ...]],
    starts: Array,
    timed: tuple[Array | None, ...],
    per_row: tuple[Array | None, ...],
    kinds: tuple[str, ...],
) -> tuple[Any, ...]:
    """``by_sequence`` for a VJP.

    Args:
        kinds: of each gradient: "time" or "row" as the input was cut, "sum" for a shared one (an array, or a
            dict of arrays).
    """
    gradients = list(zip(*(vjp(*args) for args in _cut(starts, timed, per_row)), strict=True))
    return tuple(_join(pieces, kind) for pieces, kind in zip(gradients, kinds, strict=True))


def restarted_positions(positions: Array, starts: Array) -> Array:
    """Default positions [1 t] of a packed row, counted anew in each of its sequences."""
    starts = np.asarray(starts)
    _check_starts(starts, *positions.shape)
    offsets: Array = np.repeat(starts[:-1], np.diff(starts)).astype(positions.dtype)
    return np.subtract(positions, offsets)


def _cut(
    starts: Array, timed: tuple[Array | None, ...], per_row: tuple[Array | None, ...]
) -> Iterator[tuple[Array | None, ...]]:
    starts = np.asarray(starts)
    first = next(x for x in timed if x is not None)
    _check_starts(starts, first.shape[0], first.shape[1])
    for n in range(len(starts) - 1):
        pieces = (None if x is None else x[:, starts[n] : starts[n + 1]] for x in timed)
        rows = (None if x is None else x[n : n + 1] for x in per_row)
        yield (*pieces, *rows)


def _join(pieces: tuple[Any, ...], kind: str) -> Any:
    if pieces[0] is None:
        return None
    if isinstance(pieces[0], dict):
        return {name: sum(piece[name] for piece in pieces) for name in pieces[0]}
    return sum(pieces) if kind == "sum" else np.concatenate(pieces, axis=1 if kind == "time" else 0)


def _check_starts(starts: Array, batch: int, time: int) -> None:
    if batch == 1 and (starts.ndim != 1 or len(starts) < 2 or starts.dtype.kind not in "iu"):
        raise InputError(f"starts is {starts.dtype} of shape {starts.shape}; expected integers [sequences + 1]")
    check_starts(starts.tolist(), batch, time)
