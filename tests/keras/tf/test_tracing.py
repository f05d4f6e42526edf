"""One answer in every mode: eager, traced with known and with unknown shapes, and compiled by XLA."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from griffin_core_keras.tf.loss import cross_entropy_sum
from griffin_core_keras.tf.scan import compiled_loop

B, T, D, BLOCKS, TAPS, HEADS, SIZE, WINDOW, V = 5, 21, 6, 2, 4, 3, 8, 7, 11
UNIT = 2.0**-24
MODES = [("known", False), ("unknown", False), ("known", True), ("unknown", True)]
GATES = ["recurrent_param", "input_gate_weight", "input_gate_bias", "recurrent_gate_weight", "recurrent_gate_bias"]
NAMES = [*GATES, "conv_weight", "conv_bias"]
_DRAW = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return _DRAW.normal(size=shape).astype(np.float32)


POSITIONS = np.tile(np.arange(T, dtype=np.int32), (B, 1))
POSITIONS[3, 9:] = np.arange(T - 9)
POSITIONS[4] = np.r_[3 + np.arange(5), np.arange(11), -np.ones(5)]
WEIGHTS = [normal(D), *[normal(BLOCKS, 3, 3), normal(BLOCKS, 3)] * 2, normal(D, 1, TAPS), normal(D)]
QKV = [normal(B, T, HEADS, SIZE), normal(B, T, SIZE), normal(B, T, SIZE)]
CACHE = [normal(B, WINDOW, SIZE), normal(B, WINDOW, SIZE), np.array([2, 3, 0, 4, 7], np.int32)]


def middle(engine: ModuleType, x: Any, h0: Any, conv: Any, at: Any, *weights: Any) -> Any:
    return engine.recurrent_middle(x, dict(zip(NAMES, weights, strict=True)), h0, conv, at)


def attention(engine: ModuleType, q: Any, k: Any, v: Any, at: Any, *cache: Any) -> Any:
    given = dict(zip(("k", "v", "position"), cache, strict=True)) if cache else None
    y, new = engine.local_attention(q, k, v, at, given, WINDOW)
    return (y,) if new is None else (y, new["k"], new["v"])


CASES: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "linear_scan": (
        lambda e, x, a, h0, reset: e.linear_scan(x, -tf.abs(a), h0, reset),
        [normal(B, T, D), normal(B, T, D), normal(B, D), POSITIONS == 0],
    ),
    "recurrent_middle": (middle, [normal(B, T, D), normal(B, D), normal(B, TAPS - 1, D), POSITIONS, *WEIGHTS]),
    "a fresh recurrent_middle": (
        lambda e, x, *weights: middle(e, x, None, None, None, *weights),
        [normal(B, T, D), *WEIGHTS],
    ),
    "local_attention": (attention, [*QKV, POSITIONS, *CACHE]),
    "local_attention without a cache": (attention, [*QKV, POSITIONS]),
    "global attention": (lambda e, *given: (e.local_attention(*given)[0],), [*QKV, POSITIONS]),
    "cross_entropy_sum": (
        lambda e, x, head, targets: (cross_entropy_sum(x, head, targets, 3.0, 0.02, piece_bytes=4 * B * V * 6),),
        [normal(B, T, D), normal(V, D), _DRAW.integers(-1, V, (B, T)).astype(np.int32)],
    ),
    "products": (
        lambda e, x, kernel, bias, scale: (
            e.rms_norm(x, scale),
            e.dense(x, kernel, bias),
            e.gelu_product(x, x * x),
            e.project(x, tf.transpose(kernel)),
        ),
        [normal(B, T, D), normal(D, V), normal(V), normal(D)],
    ),
}


def traced(mode: str, jit: bool, f: Callable[..., Any], given: list[np.ndarray]) -> Callable[..., Any]:
    def shape(x: np.ndarray) -> list[int | None]:
        lengths = {0: B, 1: T} if mode == "unknown" and x.shape[0] in (B, 0) else {}
        return [None if axis in lengths and n in (lengths[axis], 0) else n for axis, n in enumerate(x.shape)]

    specs = [tf.TensorSpec(shape(x), x.dtype) for x in given]
    return tf.function(f, input_signature=specs, jit_compile=jit, autograph=False)


@pytest.mark.parametrize("name", CASES)
def test_modes_agree(engine: ModuleType, name: str) -> None:
    """Outputs and gradients, to a few roundings of the largest."""
    call, given = CASES[name]

    def both(*inputs: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        floats = [x for x in inputs if x.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(floats)
            outputs = list(call(engine, *inputs))
            total = tf.add_n([tf.reduce_sum(tf.sin(y)) for y in outputs])
        return outputs, tape.gradient(total, floats)

    expected = tf.nest.flatten(both(*map(tf.constant, given)))
    assert all(np.isfinite(x).all() and np.abs(x).max() > 0 for x in expected)
    for mode, jit in MODES:
        found = tf.nest.flatten(traced(mode, jit, both, given)(*given))
        for here, there in zip(found, expected, strict=True):
            assert np.abs(here - there).max() <= 256 * UNIT * max(1.0, np.abs(there).max()), (mode, jit)


@pytest.mark.parametrize("mode", MODES[:3], ids=str)  # XLA refuses to cut a row from an axis found to be empty
@pytest.mark.parametrize("name", ["linear_scan", "recurrent_middle", "local_attention", "cross_entropy_sum"])
def test_no_tokens(engine: ModuleType, name: str, mode: tuple[str, bool]) -> None:
    """States pass through, gradients are those of the states alone."""
    call, given = CASES[name]
    given = [x[:, :0] if x.ndim > 1 and x.shape[:2] == (B, T) else x for x in given]

    def both(*inputs: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        floats = [x for x in inputs if x.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(floats)
            outputs = list(call(engine, *inputs))
            total = tf.add_n([tf.reduce_sum(y) for y in outputs])
        return outputs, tape.gradient(total, floats, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    outputs, gradients = traced(*mode, both, given)(*given)
    if name == "cross_entropy_sum":
        assert float(outputs[0]) == 0.0
        assert not any(np.any(g) for g in gradients)
        return
    assert outputs[0].shape == given[0].shape
    if name != "local_attention":
        carried = given[2 if name == "linear_scan" else 1]
        assert np.array_equal(outputs[1], carried)
        assert np.all(gradients[2 if name == "linear_scan" else 1].numpy() == 1.0)


def test_compiled_is_a_graph_for_each_shape(engine: ModuleType) -> None:
    traces = []

    def f(pair: tuple[tf.Tensor, Any]) -> dict[str, tf.Tensor]:
        traces.append(pair[0].shape)
        return {"y": pair[0] + 1.0}

    run = engine.compiled(f)
    for length in (3, 4, 3, 5):
        assert run((tf.zeros(length), None))["y"].numpy().tolist() == [1.0] * length
    assert traces == [[3], [4], [5]]


def test_an_eager_loop_is_traced_once_for_all_shapes(engine: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    for length in range(1, 30):
        x = tf.ones((1, length, 1 + length % 3))
        assert engine.linear_scan(x, tf.zeros_like(x))[1].numpy().max() == length
    assert "retracing" not in caplog.text


def test_starts_in_a_traced_function(engine: ModuleType, rng: np.random.Generator) -> None:
    x, log_a = (rng.normal(size=(1, 9, 4)).astype(np.float32) for _ in range(2))
    log_a = -np.abs(log_a)
    cuts = np.array([0, 4, 4, 9], np.int32)
    expected = engine.linear_scan(x, log_a, starts=cuts)
    found = tf.function(lambda x, log_a: engine.linear_scan(x, log_a, starts=cuts), autograph=False)(x, log_a)
    assert [y.shape for y in found] == [(1, 9, 4), (3, 4)]
    assert all(np.array_equal(here, there) for here, there in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("traced_", [False, True])
def test_long_loops_are_compiled(
    engine: ModuleType, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, dtype: str, traced_: bool
) -> None:
    """With gradients, as the plain loop within a few roundings; an eager tape and a traced one see the same."""
    long = compiled_loop.SHORTEST
    x, gate_x, gate_a = (tf.cast(rng.normal(size=(2, long, 3)), dtype) for _ in range(3))
    at = tf.constant(np.stack([np.r_[np.arange(500), np.arange(long - 500)], np.r_[np.arange(9, long), [-1] * 9]]))
    inputs = (x, gate_x, gate_a, tf.constant([-1.0, 0.0, 1.0]), tf.ones((2, 3)))

    def both(*inputs: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y, h = engine.gated_scan(*inputs, at)
            z, last = engine.linear_scan(y, -tf.abs(inputs[1]), h, at == 0)
            total = tf.reduce_sum(tf.sin(tf.cast(z, tf.float32))) + tf.reduce_sum(tf.cos(last))
        assert y.shape == z.shape == (2, long, 3)
        return [y, h, z, last, *tape.gradient(total, inputs)]

    run = tf.function(both, autograph=False) if traced_ else both
    found = [tf.cast(value, tf.float32) for value in run(*inputs)]
    monkeypatch.setattr(compiled_loop, "SHORTEST", 10**9)
    expected = [tf.cast(value, tf.float32) for value in both(*inputs)]
    unit = UNIT if dtype == "float32" else 2.0**-9
    for here, there in zip(found, expected, strict=True):
        assert np.abs(here - there).max() <= 256 * unit * np.abs(there).max()
