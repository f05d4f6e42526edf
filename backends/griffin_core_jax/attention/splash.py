"""Local attention on a TPU through JAX's own splash kernel, where it fits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

LANES = 128
LARGEST_BLOCK = 512
"""Queries and keys of a block at most; both directions then stay well inside every generation's VMEM."""


def unfit(platform: str, dtype: Any, time: int, head_dim: int) -> str | None:
    """None when splash attention gives what ``banded_attention`` gives without a cache, else why not.

    Args:
        platform: where the program runs.
        dtype: compute dtype. The kernel multiplies in bfloat16 passes, which float32 must not.
        time: tokens of a row.
        head_dim: size of a head.
    """
    if platform != "tpu":
        return f"it needs a TPU, and this runs on {platform}"
    if jnp.dtype(dtype) != jnp.bfloat16:
        return f"its products are those of bfloat16, and the compute dtype is {jnp.dtype(dtype).name}"
    if time % LANES or head_dim % LANES:
        return f"it takes lengths and heads in multiples of {LANES}, not {time} and {head_dim}"
    return None


def splash_attention(
    q: Array, keys: Array, values: Array, document: Array, window: int | None, interpret: bool = False
) -> Array:
    """softmax(q k^T / sqrt(e)) v over keys of the same document, not after the query, the last ``window`` of them.

    Args:
        q: [b t n e] rotated.
        keys, values: [b t e], rotated keys.
        document: int32 [b t]; equal numbers see each other.

    Returns:
        [b t n e] in q's dtype.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    run = _kernel(q.shape[1], q.shape[2], window, interpret)
    scaled = (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)
    found = jax.vmap(run)(jnp.swapaxes(scaled, 1, 2), keys, values, SegmentIds(document, document))
    return jnp.swapaxes(found, 1, 2)


@functools.lru_cache(maxsize=32)
def _kernel(time: int, heads: int, window: int | None, interpret: bool) -> Callable[..., Array]:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    one = splash.CausalMask((time, time)) if window is None else splash.LocalMask((time, time), (window - 1, 0), 0)
    size = next(block for block in (LARGEST_BLOCK, 256, LANES) if time % block == 0)
    names = ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute")
    blocks = splash.BlockSizes(**dict.fromkeys((*names, "block_q_dq", "block_kv_dq"), size))
    with jax.ensure_compile_time_eval():
        made: Callable[..., Array] = splash.make_splash_mqa_single_device(
            splash.MultiHeadMask([one] * heads), block_sizes=blocks, interpret=interpret
        )
    return made
