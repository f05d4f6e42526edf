"""The model as every device runs it on its own piece: to be called under ``shard_map`` over all four axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

from griffin_core.checks import PAD
from griffin_core.config import GriffinConfig
from griffin_core.layouts.states import POSITION
from griffin_core_jax.attention.ring import ends
from griffin_core_jax.blocks import Call
from griffin_core_jax.layout import SEGMENTS
from griffin_core_jax.model import Wrap, cap_logits, run_layers
from griffin_core_jax.norms import rms_norm
from griffin_core_jax.products import einsum
from griffin_core_jax.sharding import sequence
from griffin_core_jax.sharding.collectives import enter, gather, leave
from griffin_core_jax.sharding.table import SEQUENCE, TENSOR, Placement, layer_placements

Params = Mapping[str, Any]
ROW_SPLIT = ("linear_out.bias", "o_proj.bias", "down_proj.bias")
"""Biases of products whose parts are summed: one device adds them."""


def local_hidden(
    config: GriffinConfig,
    params: Params,
    tokens: Array,
    positions: Array,
    state: Mapping[str, Any] | None = None,
    *,
    dtype: Any,
    kernel: str | None = None,
    wrap: Wrap | None = None,
) -> tuple[Array, dict[str, Any] | None]:
    """``model.run_hidden`` on this device's rows, tokens and widths.

    Args:
        params, state: this device's pieces.
        tokens, positions: int32 [b t], right-padded rows.
        wrap: stands around each layer with the gathering of its weights in it (rematerialisation).

    Returns:
        (x [b t m] whole on every device of ``tensor``, state or None).
    """
    pad = positions == PAD
    x = _lookup(params["embedding"], jnp.where(pad, 0, tokens), dtype)
    x = x * jnp.asarray(config.embedding_multiplier, dtype) if config.embedding_multiplier != 1.0 else x
    call = Call(
        positions=positions,
        before=None if state is None else state[POSITION],
        head_dim=config.head_dim,
        window=config.attention_window,
        kernel=kernel,
        constrain=_constrain,
    )
    if lax.axis_size(SEQUENCE) > 1:
        call = replace(call, middle=sequence.recurrent_middle, attention=sequence.local_attention)
    stacks = None if state is None else state[SEGMENTS]
    x, stacks, _ = run_layers(config, params[SEGMENTS], x, call, stacks, _gathering(config, dtype, wrap))
    x = jnp.where(pad[..., None], 0, rms_norm(x, params["final_norm"]))
    return x, None if state is None else {POSITION: ends(positions, state[POSITION])[1], SEGMENTS: stacks}


def local_logits(config: GriffinConfig, params: Params, x: Array) -> Array:
    """This device's columns of the logits, float32 [b t v]."""
    return cap_logits(config, einsum("btm,vm->btv", enter(x), local_head(config, params, x.dtype)))


def local_head(config: GriffinConfig, params: Params, dtype: Any) -> Array:
    """This device's rows of the output projection [v m], gathered over ``fsdp``."""
    return gather(params["embedding" if config.tie_embeddings else "head"], 1, dtype)


def _lookup(embedding: Array, tokens: Array, dtype: Any) -> Array:
    """Rows of the embedding [b t m]: each device of ``tensor`` gives those that it holds."""
    rows = gather(embedding, 1, embedding.dtype)
    index = tokens - lax.axis_index(TENSOR) * rows.shape[0]
    held = (index >= 0) & (index < rows.shape[0])
    x = jnp.take(rows, jnp.where(held, index, 0), axis=0, mode="clip").astype(dtype)
    return leave(jnp.where(held[..., None], x, 0))


def _constrain(name: str, x: Array) -> Array:
    """Sums at the two ends of each sub-block; what leaves one is named, so that it can be kept and not summed again."""
    if name in ("temporal_in", "mlp_in"):
        return enter(x)
    if name in ("temporal_out", "mlp_out"):
        return checkpoint_name(leave(x), name)
    return x


def _gathering(config: GriffinConfig, dtype: Any, wrap: Wrap | None) -> Wrap:
    """Stands around each layer: its weights are made whole over ``fsdp`` inside."""
    placed = layer_placements(config)

    def around(layer: Any) -> Any:
        def run(weights: Mapping[str, Array], x: Array, state: Any) -> Any:
            return layer({n: _usable(w, placed[n], dtype) for n, w in weights.items()}, x=x, state=state)

        return run if wrap is None else wrap(run)

    return around


def _usable(weight: Array, placement: Placement, dtype: Any) -> Array:
    if placement.gathered is not None:
        return gather(weight, placement.gathered, dtype)
    if placement.name in ROW_SPLIT and lax.axis_size(TENSOR) > 1:
        return jnp.where(lax.axis_index(TENSOR) == 0, weight, 0)
    return weight
