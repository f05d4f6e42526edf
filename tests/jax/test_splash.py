"""Splash attention gives what the blocks in XLA give, is taken just where it fits, and compiles for TPUs."""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import griffin_core_jax as backend
from griffin_core_jax.attention.banded import banded_attention
from griffin_core_jax.attention.splash import splash_attention, unfit

T = 128


def _inputs(rng, shapes):
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in shapes)


def test_equals_the_blocks_in_xla(rng) -> None:
    """Two rows of packed documents, a window smaller than they are; gradients too."""
    q, k, v = _inputs(rng, ((2, T, 2, 128), (2, T, 128), (2, T, 128)))
    document = jnp.asarray(np.stack([np.arange(T) >= 100, np.arange(T) >= 7]).astype(np.int32))

    def total(attend):
        def run(q, k, v):
            y = attend(q, k, v).astype(jnp.float32)
            return (y * jnp.sin(jnp.arange(y.size).reshape(y.shape))).sum(), y

        return jax.value_and_grad(run, argnums=(0, 1, 2), has_aux=True)(q, k, v)

    (_, ours), grads = total(lambda q, k, v: splash_attention(q, k, v, document, 50, interpret=True))
    (_, theirs), expected = total(lambda q, k, v: banded_attention(q, k, v, document, document, 50))
    # Weights and outputs are rounded to bfloat16 in both, in another order.
    assert jnp.abs(ours - theirs).max() <= 4 * 2.0**-8 * jnp.abs(theirs).max()
    for mine, other in zip(grads, expected, strict=True):
        apart = jnp.abs(mine.astype(jnp.float32) - other.astype(jnp.float32)).max()
        assert apart <= 8 * 2.0**-8 * jnp.abs(other.astype(jnp.float32)).max()


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (("tpu", "bfloat16", 1024, 128), None),
        (("cpu", "bfloat16", 1024, 128), "needs a TPU"),
        (("tpu", "float32", 1024, 128), "compute dtype is float32"),
        (("tpu", "bfloat16", 1000, 128), "multiples of 128, not 1000 and 128"),
        (("tpu", "bfloat16", 1024, 64), "not 1024 and 64"),
    ],
)
def test_where_it_fits(call: tuple, reason: str | None) -> None:
    found = unfit(*call)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize(("dtype", "kernels"), [("bfloat16", 3), ("float32", 0)])
def test_lowers_for_a_tpu(dtype: str, kernels: int) -> None:
    """Forward and the two gradient kernels at the heads of RecurrentGemma-2B; nothing of it in float32."""
    with backend.targeting("tpu"):
        text = jax.jit(_gradient).trace(*_shapes(dtype)).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("@tpu_custom_call") == kernels


@pytest.mark.prove
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("chip", ["v4", "v5e", "v5p", "v6e", "tpu7x"])
def test_compiles_for_tpus(chip: str) -> None:
    from griffin_core_jax.aot.compile import compile_for

    assert compile_for(_gradient, _shapes("bfloat16"), chip).memory_analysis().temp_size_in_bytes > 0


def _gradient(q, k, v):
    def loss(q, k, v):
        return backend.local_attention(q, k, v, None, None, 300)[0].astype(jnp.float32).sum()

    return jax.grad(loss, argnums=(0, 1, 2))(q, k, v)


def _shapes(dtype: str):
    return [jax.ShapeDtypeStruct(shape, dtype) for shape in ((1, 512, 10, 256), (1, 512, 256), (1, 512, 256))]
