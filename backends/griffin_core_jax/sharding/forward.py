"""``forward`` over a mesh: one program per device, every sum and exchange written by hand."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from griffin_core.checks import PAD, check_positions, check_tokens
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.layouts.states import POSITION
from griffin_core_jax.arrays import as_dtype, is_concrete
from griffin_core_jax.devices import targeting
from griffin_core_jax.dispatch import Wanted, wanted_now
from griffin_core_jax.sharding.local import local_hidden, local_logits
from griffin_core_jax.sharding.mesh import check_batch, check_mesh, check_stateful
from griffin_core_jax.sharding.table import BATCH, SEQUENCE, TENSOR, batch_spec, param_specs, state_specs


def forward(
    config: GriffinConfig,
    mesh: Mesh,
    params: Mapping[str, Any],
    tokens: Any,
    positions: Any = None,
    state: Mapping[str, Any] | None = None,
    kernel: str | None = None,
    compute_dtype: str | None = None,
) -> tuple[Array, dict[str, Any] | None]:
    """``griffin_core_jax.forward`` over a mesh. Nothing is donated.

    Args:
        params: from ``shard_params``; arrays that lie elsewhere are moved.
        tokens: integers [b t]; b a multiple of data x fsdp, t of sequence.
        positions: int32 [b t], padding at the ends of rows only. None continues the state, or starts a document.
        state: from ``shard_state``; the mesh then has no sequence axis.
        kernel: name of a kernel for the recurrent operations; it runs on each device's rows and width alone.
        compute_dtype: dtype of the products; None is that of the embedding.

    Returns:
        (logits, state): float32 [b t v] split by rows, tokens and vocabulary, and a new state or None.

    Raises:
        ConfigError: the model cannot be split over the mesh.
        InputError: tokens or positions are not legal, or cannot be split over it.
    """
    check_mesh(config, mesh)
    check_batch(config, mesh, tuple(np.shape(tokens)))
    if state is not None:
        check_stateful(mesh)
    before = None if state is None else state[POSITION]
    _check_values(config, tokens, positions, before)
    if positions is None:
        begin = jnp.zeros(np.shape(tokens)[0], jnp.int32) if before is None else before
        positions = begin[:, None] + jnp.arange(np.shape(tokens)[1], dtype=jnp.int32)
    dtype = str(jnp.dtype(as_dtype(compute_dtype, params["embedding"].dtype)).name)
    wanted = wanted_now(kernel, params["embedding"])
    return _forward(config, mesh, wanted, dtype, params, jnp.asarray(tokens), jnp.asarray(positions), state)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _forward(
    config: GriffinConfig,
    mesh: Mesh,
    wanted: Wanted,
    dtype: str,
    params: Mapping[str, Any],
    tokens: Array,
    positions: Array,
    state: Mapping[str, Any] | None,
) -> tuple[Array, dict[str, Any] | None]:
    def local(params: Any, tokens: Array, positions: Array, state: Any) -> Any:
        with targeting(wanted.platform):
            x, new = local_hidden(config, params, tokens, positions, state, dtype=as_dtype(dtype), kernel=wanted.kernel)
            return local_logits(config, params, x), new

    states = None if state is None else state_specs(config)
    return jax.shard_map(  # type: ignore[no-any-return]
        local,
        mesh=mesh,
        in_specs=(param_specs(config), batch_spec(), batch_spec(), states),
        out_specs=(PartitionSpec(BATCH, SEQUENCE, TENSOR), states),
        check_vma=False,
    )(params, tokens, positions, state)


def _check_values(config: GriffinConfig, tokens: Any, positions: Any, before: Any) -> None:
    """Refuse ids and positions that are not legal, where they have values."""
    if not is_concrete(tokens, positions, before):
        return
    ids, at = np.asarray(tokens), None if positions is None else np.asarray(positions)
    check_tokens(config, ids, at)
    if at is None:
        return
    check_positions(at, ids.shape, None if before is None else np.asarray(before))
    pad = at == PAD
    if (pad[:, :-1] & ~pad[:, 1:]).any():
        row = int(np.argmax((pad[:, :-1] & ~pad[:, 1:]).any(axis=1)))
        raise InputError(f"row {row} has padding before its last token; over a mesh padding stands at the ends of rows")
