"""Arrays, norms and products, NaN behind resets and padding, the choice of kernels, and wrong use."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from griffin_core import registry
from griffin_core.errors import BackendError, ConfigError, InputError, KernelNotSupported
from griffin_core.protocol import Kernel
from griffin_core.shapes import UNIT_ROUNDOFF

B, T, D = 2, 9, 4


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int32", "int64", "bool", "uint8"])
def test_arrays_come_back_as_they_went(engine: ModuleType, dtype: str) -> None:
    x = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    native = engine.from_numpy(x)
    assert engine.dtype_name(native) == dtype
    kept, x[...] = x.copy(), 0
    back = engine.to_numpy(native)
    assert back.dtype == kept.dtype
    assert np.array_equal(back, kept)
    back[...] = 1
    assert np.array_equal(engine.to_numpy(native), kept)
    assert engine.dtype_name(engine.from_numpy(x, "bfloat16", "cpu")) == "bfloat16"


def test_where_arrays_are(engine: ModuleType) -> None:
    assert "cpu" in engine.devices()[-1]
    assert engine.platform(None, np.zeros(1), engine.from_numpy(np.zeros(1), device="cpu")) == "cpu"
    assert engine.platform() in ("cpu", "cuda")
    with pytest.raises(BackendError, match=r"TensorFlow has no device 'cuda:9'; there are .*cpu"):
        engine.from_numpy(np.zeros(1), device="cuda:9")
    with pytest.raises(ConfigError, match="did you mean 'float32'"):
        engine.from_numpy(np.zeros(1), "float23")


def test_vjp(engine: ModuleType) -> None:
    x, y = tf.constant([1.0, 2.0]), tf.constant([3.0, 4.0], tf.bfloat16)
    at = tf.constant([0, 1])

    def f(x: Any, y: Any, at: Any, absent: Any) -> Any:
        return tf.gather(x, at) * 2.0, None, at, x * x

    found = engine.vjp(f, (x, y, at, None), (tf.constant([1.0, 10.0]), None, None, None))
    assert found[2:] == (None, None)
    assert found[0].numpy().tolist() == [2.0, 20.0]
    assert engine.dtype_name(found[1]) == "bfloat16"
    assert not found[1].numpy().any()
    assert not engine.vjp(f, (x, y, at, None), (None,) * 4)[0].numpy().any()
    assert engine.is_concrete(x, None, np.zeros(1))
    assert tf.function(lambda x: tf.constant(engine.is_concrete(x)))(x).numpy() == np.False_


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_norm_gate_and_products(engine: ModuleType, rng: np.random.Generator, dtype: str) -> None:
    """Values and gradients beside TensorFlow's own of the formulas in float64; dtypes as promised."""
    wide = "float64" if dtype == "float64" else "float32"
    x, gate = (tf.cast(rng.normal(size=(B, T, D)), dtype) for _ in range(2))
    scale, bias = tf.cast(rng.normal(size=D), wide), tf.cast(rng.normal(size=5), wide)
    kernel, head = (tf.cast(tf.cast(rng.normal(size=s), dtype), wide) for s in ((D, 5), (7, D)))
    inputs = (x, gate, scale, bias, kernel, head)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        found = (
            engine.rms_norm(x, scale),
            engine.gelu_product(gate, x),
            engine.dense(x, kernel, bias),
            engine.dense(x[0, 0], kernel, None),
            engine.project(x, head),
        )
        x, gate, scale, bias, kernel, head = exact = [tf.cast(value, tf.float64) for value in inputs]
        unit = x / tf.sqrt(tf.reduce_mean(x * x, axis=-1, keepdims=True) + 1e-6)
        expected = (
            unit * (1.0 + scale),
            0.5 * gate * (1.0 + tf.tanh((2.0 / np.pi) ** 0.5 * (gate + 0.044715 * gate**3))) * x,
            x @ kernel + bias,
            tf.linalg.matvec(kernel, x[0, 0], transpose_a=True),
            tf.einsum("btm,vm->btv", x, head),
        )
    assert [y.dtype.name for y in found] == [dtype, dtype, dtype, dtype, wide]
    for here, there in zip(found, expected, strict=True):
        close(here, there)
        gradients = zip(inputs, tape.gradient(here, inputs), tape.gradient(there, exact), strict=True)
        for value, ours, truth in gradients:
            assert (ours is None) == (truth is None)
            if ours is not None:
                assert ours.dtype == value.dtype
                close(ours, truth)


def close(found: tf.Tensor, truth: tf.Tensor) -> None:
    unit = UNIT_ROUNDOFF["float64" if found.dtype == tf.float64 else "float32"]
    stored = UNIT_ROUNDOFF[found.dtype.name] if found.dtype.size == 2 else 0.0
    off = np.abs(tf.cast(found, tf.float64) - truth)
    assert (off <= (2.0 * stored) * np.abs(truth) + 64 * unit * np.abs(truth).max()).all()


def test_weight_gradients_are_not_rounded_to_the_compute_dtype(engine: ModuleType) -> None:
    """257 ones: bfloat16 would make it 256."""
    x, kernel = tf.ones((257, 1), tf.bfloat16), tf.ones((1, 1), tf.float32)
    (gradient,) = engine.vjp(lambda kernel: engine.dense(x, kernel, None), (kernel,), (tf.ones((257, 1), tf.bfloat16),))
    assert float(gradient[0, 0]) == 257.0


def test_nan_stays_before_a_reset(engine: ModuleType, rng: np.random.Generator) -> None:
    x, gate, log_a = (rng.normal(size=(1, T, D)).astype(np.float32) for _ in range(3))
    at = np.r_[2 + np.arange(4), np.arange(5)].astype(np.int32)[None]
    x[:, :4], gate[:, :4], log_a[:, :4] = np.nan, np.inf, -np.inf
    h0, param = np.full((1, D), np.nan, np.float32), np.zeros(D, np.float32)
    y, h = engine.linear_scan(x, -np.abs(log_a), h0, at == 0)
    assert np.isfinite(y[:, 4:]).all()
    assert np.isfinite(h).all()
    given = [tf.constant(value) for value in (x, gate, gate, param, h0)]
    y, h = engine.gated_scan(*given, at)
    assert np.isfinite(y[:, 4:]).all()
    assert np.isfinite(h).all()


def test_nan_at_padding_reaches_no_gradient(engine: ModuleType, rng: np.random.Generator) -> None:
    at = np.array([np.r_[np.arange(5), -np.ones(4)], np.arange(9)], np.int32)
    pad = (at == -1)[..., None]
    clean = [rng.normal(size=(B, T, D)).astype(np.float32) for _ in range(3)]
    results = []
    for fill in (0.0, np.nan):
        inputs = [tf.constant(np.where(pad, fill, x).astype(np.float32)) for x in clean]
        inputs.append(tf.constant([-1.0, 0.0, 1.0, 2.0]))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y, h = engine.gated_scan(*inputs, None, at)
            total = tf.reduce_sum(tf.sin(y)) + tf.reduce_sum(tf.cos(h))
        results.append([y, h, *tape.gradient(total, inputs)])
    for here, there in zip(*results, strict=True):
        assert np.array_equal(here, there)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_stay_finite_where_nothing_decays(engine: ModuleType, dtype: str) -> None:
    """The multiplier's own derivative is infinite at a = 1; ours is not."""
    x, gate = tf.ones((1, T, D), dtype), tf.fill((1, T, D), tf.constant(-100.0, dtype))
    seeds = (tf.ones((1, T, D), dtype), None)
    found = engine.vjp(engine.gated_scan, (x, x, gate, tf.zeros(D), tf.ones((1, D))), seeds)
    assert all(np.isfinite(engine.to_numpy(g).astype(np.float32)).all() for g in found)


def test_a_decay_of_zero_has_no_gradient(engine: ModuleType) -> None:
    x, log_a = tf.ones((1, T, D)), tf.fill((1, T, D), -np.inf)
    dx, dlog_a, dh0 = engine.vjp(engine.linear_scan, (x, log_a, tf.ones((1, D))), (x, tf.ones((1, D))))
    assert not np.any(dlog_a)
    assert not np.any(dh0)
    assert np.array_equal(dx[0, :, 0], [1.0] * (T - 1) + [2.0])


def test_kernels_are_chosen_by_name(engine: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    x = tf.ones((1, T, D))

    def marked(x: Any, log_a: Any, h0: Any, reset: Any) -> Any:
        return x * 7.0, x[:, -1]

    def one_row(call: Any) -> str | None:
        return None if call.shapes["x"][0] == 1 and not call.packed else "it takes one row"

    mine = Kernel("linear_scan", "mine", marked, supports=one_row)
    monkeypatch.setitem(registry._kernels, "keras", (*engine.KERNELS, mine))
    assert float(engine.linear_scan(x, x * 0.0)[0][0, 0, 0]) == 1.0
    assert float(engine.linear_scan(x, x * 0.0, kernel="mine")[0][0, 0, 0]) == 7.0
    monkeypatch.setenv("GRIFFIN_KERNEL", "mine")
    assert float(engine.linear_scan(x, x * 0.0)[0][0, 0, 0]) == 7.0
    assert float(engine.gated_scan(x, x, x, tf.zeros(D))[0][0, 0, 0]) == pytest.approx(7.0 / (1.0 + np.exp(-1.0)))
    with pytest.raises(KernelNotSupported, match="kernel 'mine' cannot run linear_scan on keras: it takes one row"):
        engine.linear_scan(tf.ones((2, T, D)), tf.zeros((2, T, D)))
    with pytest.raises(KernelNotSupported, match="keras has no kernel 'lop' for linear_scan; did you mean 'loop'"):
        engine.linear_scan(x, x * 0.0, kernel="lop")


def test_wrong_use(engine: ModuleType) -> None:
    x = tf.ones((1, T, D))
    with pytest.raises(InputError, match=r"linear_scan: log_a has shape \(1, 9, 3\); expected \(1, 9, 4\)"):
        engine.linear_scan(x, tf.zeros((1, T, 3)))
    with pytest.raises(InputError, match="params is a list; expected a dict"):
        engine.rg_lru(x, [1.0])
    with pytest.raises(InputError, match=r"k has shape \(1, 9, 3\); expected \(1, 9, 4\)"):
        engine.local_attention(x[:, :, None], x[..., :3], x)
    cache = {"k": tf.zeros((1, 4, D)), "v": tf.zeros((1, 4, D)), "position": tf.zeros(1, tf.int32)}
    with pytest.raises(InputError, match="the cache holds 4 tokens, fewer than the window of 5"):
        engine.local_attention(x[:, :, None], x, x, None, cache, 5)
    with pytest.raises(InputError, match="row 0 would hold 9 tokens, but the state was made with capacity=4"):
        engine.local_attention(x[:, :, None], x, x, None, cache, None)
    with pytest.raises(InputError, match=r"starts is \[0, 4\]; expected it to rise from 0 to the row's 9 tokens"):
        engine.linear_scan(x, x, starts=[0, 4])


@pytest.mark.parametrize(
    ("shape", "log_a", "message"),
    [
        ([None, None, D], [None, None, 3], r"log_a has shape \(None, None, 3\); expected \(None, None, 4\)"),
        ([None, 5, D], [2, 6, D], r"log_a has shape \(2, 6, 4\); expected \(None, 5, 4\)"),
        ([None, None], [None, None], r"x has shape \(None, None\); expected three axes"),
        ([None, None, None], [None, None, None], "x has shape .*; expected a known width"),
        (None, [1, 2, D], "x has an unknown number of axes"),
    ],
)
def test_wrong_use_of_shapes_that_are_not_all_known(engine: ModuleType, shape: Any, log_a: Any, message: str) -> None:
    specs = [tf.TensorSpec(shape, tf.float32), tf.TensorSpec(log_a, tf.float32)]
    with pytest.raises(InputError, match=message):
        tf.function(engine.linear_scan, autograph=False).get_concrete_function(*specs)


def test_starts_cannot_be_traced(engine: ModuleType) -> None:
    x = tf.ones((1, T, D))
    with pytest.raises(InputError, match="starts is traced"):
        tf.function(lambda s: engine.linear_scan(x, x, starts=s), autograph=False)(tf.constant([0, 9]))
