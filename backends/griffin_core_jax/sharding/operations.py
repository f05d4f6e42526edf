"""Operations over a mesh for programs of one's own: each device runs a kernel on its rows and its width.

A kernel is a black box to the compiler's own partitioning, which would gather everything for it. Under ``shard_map``
it runs on each piece, and nothing travels but what a split time axis needs (``sequence``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from griffin_core.arguments import check_arguments
from griffin_core.errors import ConfigError, InputError
from griffin_core_jax.scan import compose
from griffin_core_jax.sharding import sequence
from griffin_core_jax.sharding.table import BATCH, SEQUENCE, TENSOR, partition

_AXES = {
    "recurrent_param": ("lru",),
    "input_gate_weight": ("gate_blocks", "block_in", "block_out"),
    "recurrent_gate_weight": ("gate_blocks", "block_in", "block_out"),
    "input_gate_bias": ("gate_blocks", "block_out"),
    "recurrent_gate_bias": ("gate_blocks", "block_out"),
    "conv_weight": ("lru", "one", "conv"),
    "conv_bias": ("lru",),
}


def recurrent_middle(
    mesh: Mesh,
    x: Array,
    params: Mapping[str, Array],
    h0: Array | None = None,
    conv_state: Array | None = None,
    positions: Array | None = None,
    kernel: str | None = None,
) -> tuple[Array, Array, Array]:
    """``griffin_core_jax.recurrent_middle`` on every device's rows, tokens and gate blocks.

    Args:
        mesh: from ``make_mesh``.
        x: [b t d], split as (data and fsdp, sequence, tensor); the compiler moves it where it is not.
        params, h0, conv_state, positions: as there; states need a mesh without a sequence axis.

    Returns:
        (y, h, conv_state), split as x is. With a sequence axis the states are those after the last token.

    Raises:
        ConfigError: ``tensor`` does not divide the gate blocks.
        InputError: rows or tokens cannot be split, or a state is given and the time axis is split.
    """
    given = {"x": x, "params": params, "h0": h0, "conv_state": conv_state, "positions": positions}
    check_arguments("recurrent_middle", given)
    _check(mesh, x, params, h0 is not None or conv_state is not None)
    fresh = h0 is None and conv_state is None
    if positions is None:
        first = 0 if fresh else 1
        positions = jnp.broadcast_to(jnp.arange(first, x.shape[1] + first, dtype=jnp.int32), x.shape[:2])
        h0 = h0 if fresh or h0 is not None else jnp.zeros((x.shape[0], x.shape[2]), jnp.float32)
    wide, state = partition(("batch", "time", "lru")), partition(("batch", "lru"))
    tail = partition(("batch", "conv", "lru"))
    split = mesh.shape[SEQUENCE] > 1

    def local(x: Array, params: Any, h0: Any, conv_state: Any, positions: Array) -> Any:
        if not split:
            return compose.recurrent_middle(x, params, h0, conv_state, positions, None, kernel)
        y, *states = sequence.recurrent_middle(x, params, None, None, positions, None, kernel)
        return y, *(sequence.last_piece(value) for value in states)

    return jax.shard_map(  # type: ignore[no-any-return]
        local,
        mesh=mesh,
        in_specs=(
            wide,
            {name: partition(_AXES[name]) for name in params},
            None if h0 is None else state,
            None if conv_state is None else tail,
            partition(("batch", "time")),
        ),
        out_specs=(wide, state, tail),
        check_vma=False,
    )(x, dict(params), h0, conv_state, positions)


def _check(mesh: Mesh, x: Array, params: Mapping[str, Array], stateful: bool) -> None:
    rows, tokens, blocks = mesh.shape[BATCH[0]] * mesh.shape[BATCH[1]], mesh.shape[SEQUENCE], mesh.shape[TENSOR]
    gates = params["input_gate_weight"].shape[0]
    if gates % blocks:
        legal = ", ".join(str(size) for size in range(1, gates + 1) if gates % size == 0)
        raise ConfigError(f"tensor={blocks} does not divide {gates} gate blocks; legal sizes are {legal}")
    if x.shape[0] % rows or x.shape[1] % tokens:
        raise InputError(f"x {tuple(x.shape)} cannot be split over {rows} (rows) x {tokens} (tokens) devices")
    if stateful and tokens > 1:
        raise InputError(f"a state needs sequence=1, the mesh has {tokens}; make one without")
