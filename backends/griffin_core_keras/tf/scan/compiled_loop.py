"""The loops, compiled by XLA where that pays, also inside functions that are not compiled.

TensorFlow's own executor spends more time between the operations of a step than in them. XLA makes one fused step of
them, at the price of compiling it for each shape; many tokens are worth that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from griffin_core_keras.tf.devices import platform
from griffin_core_keras.tf.scan import gated_loop, loop
from griffin_core_keras.tf.tracing import by_xla

SHORTEST = 512
"""Tokens that are worth compiling for."""

_linear, _linear_vjp = by_xla(loop.linear_scan), by_xla(loop.linear_scan_vjp)
_gated, _gated_vjp = by_xla(gated_loop.gated_scan), by_xla(gated_loop.gated_scan_vjp)


def linear_scan(
    x: tf.Tensor, log_a: tf.Tensor, h0: tf.Tensor | None = None, reset: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """``loop.linear_scan``."""
    return _run(loop.linear_scan, _linear, x, log_a, h0, reset)


def linear_scan_vjp(x: tf.Tensor, *others: tf.Tensor | None) -> tuple[tf.Tensor | None, ...]:
    """``loop.linear_scan_vjp``."""
    found: tuple[tf.Tensor | None, ...] = (_linear_vjp if _pays(x) else loop.linear_scan_vjp)(x, *others)
    return found


def gated_scan(
    x: tf.Tensor,
    gate_x: tf.Tensor,
    gate_a: tf.Tensor,
    recurrent_param: tf.Tensor,
    h0: tf.Tensor | None = None,
    positions: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """``gated_loop.gated_scan``."""
    return _run(gated_loop.gated_scan, _gated, x, gate_x, gate_a, recurrent_param, h0, positions)


def gated_scan_vjp(x: tf.Tensor, *others: tf.Tensor | None) -> tuple[tf.Tensor | None, ...]:
    """``gated_loop.gated_scan_vjp``."""
    found: tuple[tf.Tensor | None, ...] = (_gated_vjp if _pays(x) else gated_loop.gated_scan_vjp)(x, *others)
    return found


def _run(
    plain: Callable[..., Any], fast: Callable[..., Any], x: tf.Tensor, *others: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    if not _pays(x):
        found: tuple[tf.Tensor, tf.Tensor] = plain(x, *others)
        return found
    y, h = fast(x, *others)
    y.set_shape(x.shape)  # its one trace serves all shapes and knows none
    h.set_shape((x.shape[0], x.shape[2]))
    return y, h


def _pays(x: tf.Tensor) -> bool:
    """On a processor, where it is measured, and where the shape is known before it runs."""
    return x.shape.is_fully_defined() and x.shape[1] >= SHORTEST and platform(x) == "cpu"
