"""Traced functions: those of whole programs, and loops that are too slow one operation at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_Kind = tuple[tf.DType, int] | None


def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` as a TensorFlow graph for each shape and each argument that is no tensor.

    Args:
        f: a function of nests of tensors (None among them). Its Python code runs when it is traced: ``if`` and
            ``for`` on values of tensors are not rewritten.
    """
    traced: Callable[..., Any] = tf.function(f, autograph=False, jit_compile=False, reduce_retracing=False)
    return traced


def in_graph(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` of tensors or None, always as a graph: part of the function that is being traced, else one of its own."""
    own = _traced_once(f, jit=False)

    @functools.wraps(f)
    def call(*arguments: tf.Tensor | None) -> Any:
        return own(*arguments) if tf.executing_eagerly() else f(*arguments)

    return call


def by_xla(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` of tensors or None, compiled by XLA for each shape, also inside functions that XLA does not compile."""
    return functools.wraps(f)(_traced_once(f, jit=True))


def _traced_once(f: Callable[..., Any], jit: bool) -> Callable[..., Any]:
    """``f`` as a graph that is traced once for all shapes: what it does in a step costs less than to trace it."""

    @functools.cache
    def own(kinds: tuple[_Kind, ...]) -> Callable[..., Any]:
        def on_present(*tensors: tf.Tensor) -> Any:
            given = iter(tensors)
            return f(*(None if kind is None else next(given) for kind in kinds))

        specs = [tf.TensorSpec([None] * kind[1], kind[0]) for kind in kinds if kind is not None]
        # It runs where its inputs are, not where the first ones were; and it may first be met while another is traced.
        with tf.init_scope(), tf.device(None):
            traced = tf.function(on_present, input_signature=specs, autograph=False, jit_compile=jit)
            found: Callable[..., Any] = traced.get_concrete_function()
            return found

    def call(*arguments: tf.Tensor | None) -> Any:
        kinds = tuple(None if x is None else (x.dtype, len(x.shape)) for x in arguments)
        return own(kinds)(*(x for x in arguments if x is not None))

    return call
