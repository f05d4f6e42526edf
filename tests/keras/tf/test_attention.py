"""Attention in blocks: the loop, the blocks written out, and the plain softmax give one answer and one gradient."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from griffin_core_keras.tf.attention import band, banded

B, T, PAST, HEADS, SIZE = 2, 23, 6, 3, 8
UNIT = 2.0**-24


@pytest.fixture
def given(rng: np.random.Generator) -> list[np.ndarray]:
    """q, keys, values, then the documents of queries and keys."""
    q = rng.normal(size=(B, T, HEADS, SIZE)).astype(np.float32)
    keys, values = (rng.normal(size=(B, PAST + T, SIZE)).astype(np.float32) for _ in range(2))
    document = np.zeros((B, T), np.int32)
    document[0, 9:] = 1
    document[1, :] = np.arange(T) // 10
    held = np.zeros((B, PAST), np.int32)
    held[1, :4] = -1
    return [q, keys, values, document, np.concatenate([held, document], axis=1)]


def plain(q, keys, values, query_document, key_document, window):
    """All queries against all keys, in float64."""
    scores = tf.einsum("bqne,bke->bqnk", q, keys) * SIZE**-0.5
    query, key = PAST + np.arange(T)[:, None], np.arange(PAST + T)
    seen = (key <= query) & (True if window is None else key > query - window)
    seen = seen & (query_document[..., None] == key_document[:, None])
    scores = tf.where(seen[:, :, None], scores, tf.constant(-np.inf, tf.float64))
    return tf.einsum("bqnk,bke->bqne", tf.nn.softmax(scores), values)


def results(attention, inputs, *rest) -> list[np.ndarray]:
    """The output and the gradients of its sine."""
    inputs = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = attention(*inputs, *rest)
        total = tf.reduce_sum(tf.sin(y))
    return [x.numpy() for x in (y, *tape.gradient(total, inputs))]


@pytest.mark.parametrize("window", [None, 1, 2, 5, 40])
@pytest.mark.parametrize("unrolled", [100, 0])
@pytest.mark.parametrize("block", [4, 8, 256])
def test_blocks_equal_the_whole(given, monkeypatch, block: int, unrolled: int, window: int | None) -> None:
    monkeypatch.setattr(band, "BLOCK", block)
    monkeypatch.setattr(banded, "UNROLLED", unrolled)
    found = results(banded.banded_attention, given[:3], *map(tf.constant, given[3:]), window)
    expected = results(plain, [x.astype(np.float64) for x in given[:3]], *given[3:], window)
    for here, there in zip(found, expected, strict=True):
        assert here.shape == there.shape
        assert np.abs(here - there).max() <= 64 * UNIT * np.abs(there).max()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_dtypes_are_kept(engine: ModuleType, rng: np.random.Generator, dtype: str) -> None:
    q = tf.cast(rng.normal(size=(B, T, HEADS, SIZE)), dtype)
    k, v = (tf.cast(rng.normal(size=(B, T, SIZE)), dtype) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch((q, k, v))
        y, _ = engine.local_attention(q, k, v, window=5)
    assert y.dtype == dtype
    assert [g.dtype for g in tape.gradient(y, (q, k, v))] == [dtype] * 3


def test_nan_at_padding_reaches_no_gradient(engine: ModuleType, rng: np.random.Generator) -> None:
    at = np.tile(np.arange(T, dtype=np.int32), (B, 1))
    at[0, 15:] = -1
    pad = at == -1
    clean = [rng.normal(size=(B, T, HEADS, SIZE)), rng.normal(size=(B, T, SIZE)), rng.normal(size=(B, T, SIZE))]
    clean = [x.astype(np.float32) for x in clean]
    dirty = [np.where(pad.reshape(B, T, *[1] * (x.ndim - 2)), np.nan, x).astype(np.float32) for x in clean]
    both = [results(lambda *qkv: engine.local_attention(*qkv, at, None, 5)[0], qkv) for qkv in (clean, dirty)]
    for here, there in zip(*both, strict=True):
        assert np.array_equal(here, there)
        assert not here[pad].any()
