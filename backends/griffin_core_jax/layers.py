"""Weights and states of single layers, for those who use a block in a model of their own."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from griffin_core.config import GriffinConfig
from griffin_core.layouts.initialise import init_param
from griffin_core.layouts.params import layer_prefix, param_table
from griffin_core.layouts.states import state_table
from griffin_core_jax.arrays import as_dtype, from_numpy
from griffin_core_jax.blocks import Call
from griffin_core_jax.layout import layer_rows


def init_layer(
    config: GriffinConfig, layer: int = 0, seed: int = 0, init: str = "paper", dtype: str | None = None
) -> dict[str, Array]:
    """Random weights of one layer, as ``residual_block`` and the blocks inside it take them.

    Args:
        config: sizes, and the kind of the layer.
        layer: index of the layer.
        seed, init: as in ``griffin_core.init``: the weights are those of the whole model's layer.
        dtype: name of a dtype, or None for float32; the decay parameter is float32 always.
    """
    table = {spec.name: spec for spec in param_table(config)}
    found = {}
    for row in layer_rows(config, layer):
        spec = table[layer_prefix(layer) + row.suffix]
        value = init_param(spec, seed, init)
        found[row.name] = from_numpy(value.T if row.transposed else value, "float32" if spec.float32 else dtype)
    return found


def init_layer_state(
    config: GriffinConfig, batch: int, layer: int = 0, capacity: int | None = None, dtype: str | None = None
) -> dict[str, Array]:
    """The state of one layer before any token: h and conv, or k and v."""
    prefix, compute = f"layers.{layer}.", as_dtype(dtype, jnp.float32)
    rows = [row for row in state_table(config, batch, capacity) if row.name.startswith(prefix)]
    return {row.name.removeprefix(prefix): jnp.zeros(row.shape, row.dtype or compute) for row in rows}


def block_call(config: GriffinConfig, positions: Array, before: Array | None = None, **options: Any) -> Call:
    """What the blocks need to know besides weights and x.

    Args:
        positions: int32 [b t], right-padded: 0 starts a document, -1 is padding.
        before: int32 [b], tokens that an attention layer's state has seen; None without a state.
        options: further fields of ``Call``.
    """
    window = config.attention_window
    return Call(positions=positions, before=before, head_dim=config.head_dim, window=window, **options)
