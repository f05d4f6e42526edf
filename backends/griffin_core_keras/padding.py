"""Positions from masks, and moving padding to the ends of rows and back. On every engine, inside compiled code too."""

from __future__ import annotations

from typing import Any

from keras import ops

from griffin_core.checks import PAD


def positions_of(mask: Any, begin: Any | None = None) -> Any:
    """int32 [b t]: each row's real tokens counted from ``begin`` (int32 [b]; None is 0), -1 at padding.

    Args:
        mask: bool [b t], False at padding, which may stand anywhere.
    """
    real = ops.cast(mask, "int32")
    at = ops.cumsum(real, axis=1) - 1
    at = at if begin is None else at + ops.cast(begin, "int32")[:, None]
    return ops.where(ops.cast(mask, "bool"), at, PAD)


def following(before: Any | None, like: Any) -> Any:
    """int32 [b t]: positions that continue a state's (int32 [b]), or start documents; ``like`` is [b t ...]."""
    batch, time = ops.shape(like)[:2]
    begin = ops.zeros((batch,), "int32") if before is None else before
    return begin[:, None] + ops.arange(time, dtype="int32")[None]


def compaction(positions: Any) -> Any:
    """int32 [b t]: the order that moves each row's padding to its end and keeps the rest in order."""
    time = ops.shape(positions)[1]
    late = ops.where(positions == PAD, time, 0)
    return ops.cast(ops.argsort(late + ops.arange(time, dtype="int32")[None], axis=1), "int32")  # keys differ


def gather_time(x: Any, order: Any) -> Any:
    """x [b t ...] with each row's tokens in ``order``."""
    index = ops.reshape(order, (*ops.shape(order), *(1,) * (len(x.shape) - 2)))
    return ops.take_along_axis(x, ops.broadcast_to(index, ops.shape(x)), axis=1)


def scatter_time(x: Any, order: Any) -> Any:
    """The inverse of ``gather_time``."""
    return gather_time(x, ops.cast(ops.argsort(order, axis=1), "int32"))


def ends(positions: Any, before: Any) -> Any:
    """int32 [b]: a state's position after right-padded rows; ``before`` is the one it had."""
    if positions.shape[1] == 0:
        return before
    real = ops.sum(ops.cast(positions != PAD, "int32"), axis=1)
    last = ops.take_along_axis(positions, ops.maximum(real - 1, 0)[:, None], axis=1)[:, 0]
    return ops.cast(ops.where(real > 0, last + 1, before), "int32")
