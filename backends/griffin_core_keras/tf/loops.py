"""Loops that collect one tensor a step: eager, traced with or without shapes, and compiled by XLA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from griffin_core_keras.tf.arrays import Size

Step = Callable[[tf.Tensor, Any], tuple[Any, Sequence[tf.Tensor]]]


def collect(count: Size, step: Step, carry: Any, like: Sequence[tf.Tensor], reverse: bool = False) -> Any:
    """Run ``step(index, carry) -> (carry, parts)`` for every index below ``count``.

    Args:
        carry: a nest of tensors whose shapes stay.
        like: one tensor of zeros for each part, in its shape and dtype.
        reverse: the highest index first.

    Returns:
        (carry, stacks): each part as one tensor [count ...].
    """
    # A list that may be empty, or whose parts have no known shape, takes its shape from a first entry.
    known = isinstance(count, int) and all(part.shape.is_fully_defined() for part in like)
    room = count if known else tf.maximum(count, 1)
    lists = [tf.TensorArray(part.dtype, size=room, element_shape=part.shape) for part in like]
    if not known:
        lists = [found.write(0, part) for found, part in zip(lists, like, strict=True)]

    def body(done: tf.Tensor, carry: Any, lists: Any) -> tuple[Any, ...]:
        index = count - 1 - done if reverse else done
        carry, parts = step(index, carry)
        return done + 1, carry, [found.write(index, part) for found, part in zip(lists, parts, strict=True)]

    _, carry, lists = tf.while_loop(lambda done, *_: done < count, body, (tf.constant(0), carry, lists))
    stacks = [found.stack() for found in lists]
    return carry, stacks if known else [stack[:count] for stack in stacks]
