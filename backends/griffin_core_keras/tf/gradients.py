"""Functions that bring their own gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def own_gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f(*tensors) -> (outputs, pull)`` as a function with the outputs alone.

    ``pull(*cotangents)`` gives one gradient for each tensor. What ``f`` computes on the way is not recorded:
    ``tf.custom_gradient`` by itself lets an eager tape keep every intermediate tensor.
    """

    @functools.wraps(f)
    def unrecorded(*tensors: tf.Tensor) -> Any:
        return f(*(tf.stop_gradient(x) for x in tensors))

    found: Callable[..., Any] = tf.custom_gradient(unrecorded)
    return found
