"""The operations that mix tokens, on the mesh of a Keras distribution: each device runs a kernel on its own piece.

A kernel is a black box to the compiler's own partitioning; everything else it splits by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import keras
from jax import Array
from jax.sharding import Mesh

import griffin_core_jax as backend
from griffin_core_jax.sharding.operations import recurrent_middle as sharded_middle
from griffin_core_jax.sharding.table import AXES, partition


def mesh_now() -> Mesh | None:
    """The mesh of the distribution in force, where it is one of ``griffin_core_keras.model_parallel``."""
    found = keras.distribution.distribution()
    if not isinstance(found, keras.distribution.ModelParallel) or tuple(found.device_mesh.axis_names) != AXES:
        return None
    mesh: Mesh = found.device_mesh.backend_mesh
    return mesh


@functools.wraps(backend.recurrent_middle)
def recurrent_middle(
    x: Array,
    params: Mapping[str, Array],
    h0: Array | None = None,
    conv_state: Array | None = None,
    positions: Array | None = None,
    starts: Array | None = None,
    kernel: str | None = None,
) -> tuple[Array, Array, Array]:
    """``griffin_core_jax.recurrent_middle``; under a distribution on every device's rows and gate blocks."""
    mesh = mesh_now()
    if mesh is None or starts is not None:
        return backend.recurrent_middle(x, params, h0, conv_state, positions, starts, kernel)
    return sharded_middle(mesh, x, params, h0, conv_state, positions, kernel)


@functools.wraps(backend.local_attention)
def local_attention(
    q: Array,
    k: Array,
    v: Array,
    positions: Array | None = None,
    cache: Mapping[str, Array] | None = None,
    window: int | None = None,
) -> tuple[Array, dict[str, Array] | None]:
    """``griffin_core_jax.local_attention``; under a distribution on every device's rows and heads."""
    mesh = mesh_now()
    if mesh is None:
        return backend.local_attention(q, k, v, positions, cache, window)
    heads, shared, flat = (partition(("batch", "time", *rest)) for rest in (("heads", "kv"), ("kv",), ()))
    kept = None if cache is None else {name: partition(("batch",)) for name in cache}
    return jax.shard_map(  # type: ignore[no-any-return]
        lambda q, k, v, positions, cache: backend.local_attention(q, k, v, positions, cache, window),
        mesh=mesh,
        in_specs=(heads, shared, shared, None if positions is None else flat, kept),
        out_specs=(heads, kept),
        check_vma=False,
    )(q, k, v, positions, None if cache is None else dict(cache))
