"""The loss in pieces is the plain cross-entropy of all logits."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from griffin_core_keras.tf.loss import cross_entropy_sum

B, T, M, V = 3, 10, 8, 13
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}


@pytest.fixture
def given(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hidden states, projection, targets with some left out."""
    return rng.normal(size=(B, T, M)), rng.normal(size=(V, M)), rng.integers(-1, V, (B, T)).astype(np.int32)


def plain(x: tf.Tensor, weight: tf.Tensor, targets: tf.Tensor, cap: float | None, scale: tf.Tensor) -> tf.Tensor:
    """All logits at once."""
    logits = tf.einsum("btm,vm->btv", x, weight)
    logits = logits if cap is None else cap * tf.tanh(logits / cap)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(targets, 0), logits)
    return scale * tf.reduce_sum(tf.where(targets >= 0, losses, 0.0))


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("positions", [1, 3, 4, 100])
def test_equals_all_logits_at_once(given, positions: int, dtype: str, cap: float | None) -> None:
    """Value and gradients, in pieces of 1, of 3 and 4 (the last is shorter), and in one."""
    x, weight, targets = given
    wide = "float64" if dtype == "float64" else "float32"
    x, weight = tf.cast(x, dtype), tf.cast(tf.cast(weight, dtype), wide)  # exact in the compute dtype
    found, expected = [], []
    inputs = (x, weight, tf.constant(0.25, wide))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        ours = cross_entropy_sum(*inputs[:2], targets, cap, inputs[2], piece_bytes=4 * B * V * positions)
        exact = [tf.cast(value, tf.float64) for value in inputs]
        truth = plain(exact[0], exact[1], targets, cap, exact[2])
    found, expected = [ours, *tape.gradient(ours, inputs)], [truth, *tape.gradient(truth, exact)]
    assert ours.dtype == wide
    assert [g.dtype for g in found[1:]] == [v.dtype for v in inputs]
    for name, here, there in zip(("loss", "x", "weight", "scale"), found, expected, strict=True):
        unit = max(UNIT[wide] * 64, UNIT[here.dtype.name])
        off = np.abs(tf.cast(here, tf.float64) - there).max()
        assert off <= unit * np.abs(there).max(), name


def test_what_is_not_asked_for_may_hold_anything(given) -> None:
    x, weight, targets = given
    x = x.astype(np.float32)
    dirty = np.where((targets < 0)[..., None], np.nan, x).astype(np.float32)
    results = []
    for value in (x, dirty):
        inputs = (tf.constant(value), tf.constant(weight.astype(np.float32)))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = cross_entropy_sum(*inputs, targets, 3.0, piece_bytes=4 * B * V * 4)
        results.append([loss, *tape.gradient(loss, inputs)])
    for clean, other in zip(*results, strict=True):
        assert np.array_equal(clean, other)
    assert not np.any(results[0][1][targets < 0])


def test_all_logits_never_exist(given) -> None:
    """No tensor of the traced value and gradient, inside loops or outside, is as large as all logits."""
    x, weight, targets = given

    def gradient(x: tf.Tensor, weight: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch((x, weight))
            loss = cross_entropy_sum(x, weight, targets, None, piece_bytes=4 * B * V * 2)
        return [loss, *tape.gradient(loss, (x, weight))]

    traced = tf.function(gradient, autograph=False).get_concrete_function(*map(tf.constant, (x, weight)))
    graph = traced.graph.as_graph_def(add_shapes=True)
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    shapes = {tuple(d.size for d in s.dim) for node in nodes for s in node.attr["_output_shapes"].list.shape}
    assert (B, 2, V) in shapes
    assert max(np.prod(shape) for shape in shapes if shape) < B * T * V
