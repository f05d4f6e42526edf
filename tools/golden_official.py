"""Run google-deepmind/recurrentgemma (torch and Flax halves) on a case, from canonical weights.

The official window W lets a query see itself and W keys before it: ours is W + 1.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from golden_cases import Case

from griffin_core.config import ATTENTION, GriffinConfig
from griffin_core.shapes import Array

TABLE: tuple[tuple[str, str, str], ...] = (
    # canonical name                                  official name                       how to get one from the other
    ("model.embed_tokens.weight", "embedder.input_embedding", "same"),
    ("model.final_norm.weight", "final_norm.scale", "same"),
    ("temporal_pre_norm.weight", "temporal_pre_norm.scale", "same"),
    ("channel_pre_norm.weight", "channel_pre_norm.scale", "same"),
    ("temporal_block.linear_x.weight", "recurrent_block.linear_x.weight", "linear"),
    ("temporal_block.linear_x.bias", "recurrent_block.linear_x.bias", "same"),
    ("temporal_block.linear_y.weight", "recurrent_block.linear_y.weight", "linear"),
    ("temporal_block.linear_y.bias", "recurrent_block.linear_y.bias", "same"),
    ("temporal_block.linear_out.weight", "recurrent_block.linear_out.weight", "linear"),
    ("temporal_block.linear_out.bias", "recurrent_block.linear_out.bias", "same"),
    ("temporal_block.conv_1d.weight", "recurrent_block.conv_1d.w", "taps"),
    ("temporal_block.conv_1d.bias", "recurrent_block.conv_1d.b", "same"),
    ("temporal_block.rg_lru.recurrent_param", "recurrent_block.rg_lru.a_param", "same"),
    ("temporal_block.rg_lru.input_gate_weight", "recurrent_block.rg_lru.input_gate.w", "same"),
    ("temporal_block.rg_lru.input_gate_bias", "recurrent_block.rg_lru.input_gate.b", "same"),
    ("temporal_block.rg_lru.recurrent_gate_weight", "recurrent_block.rg_lru.a_gate.w", "same"),
    ("temporal_block.rg_lru.recurrent_gate_bias", "recurrent_block.rg_lru.a_gate.b", "same"),
    ("temporal_block.q_proj.weight", "attention_block.proj_q.weight", "linear"),
    ("temporal_block.k_proj.weight", "attention_block.proj_k.weight", "linear"),
    ("temporal_block.v_proj.weight", "attention_block.proj_v.weight", "linear"),
    ("temporal_block.o_proj.weight", "attention_block.proj_final.weight", "linear"),
    ("temporal_block.o_proj.bias", "attention_block.proj_final.bias", "same"),
    ("mlp_block.gate_proj.weight", "mlp_block.ffw_up.w", "up weight 0"),
    ("mlp_block.up_proj.weight", "mlp_block.ffw_up.w", "up weight 1"),
    ("mlp_block.gate_proj.bias", "mlp_block.ffw_up.b", "up bias 0"),
    ("mlp_block.up_proj.bias", "mlp_block.ffw_up.b", "up bias 1"),
    ("mlp_block.down_proj.weight", "mlp_block.ffw_down.weight", "linear"),
    ("mlp_block.down_proj.bias", "mlp_block.ffw_down.bias", "same"),
)
_ROWS = {canonical: (official, how) for canonical, official, how in TABLE}
_SHAPED: dict[str, Callable[[Array], Array]] = {
    "same": lambda value: value,
    "linear": lambda value: value,
    "taps": lambda value: value[:, 0, :].T,
    "up weight": lambda value: value.T,
    "up bias": lambda value: value[None, None, :],
}


def torch_weights(weights: Mapping[str, Array]) -> dict[str, Array]:
    """The official torch checkpoint's flat dict: linears [out, in], gate and up branches stacked."""
    halves: dict[str, list[Array]] = {}
    for canonical, value in weights.items():
        layer, suffix = _split(canonical)
        official, how = _ROWS[suffix]
        shaped = _SHAPED[how.rstrip(" 01")](value)
        # Canonical order puts gate (index 0) before up (index 1).
        halves.setdefault(layer + official, []).append(shaped)
    return {name: np.ascontiguousarray(np.stack(v) if len(v) == 2 else v[0]) for name, v in halves.items()}


def flax_weights(weights: Mapping[str, Array]) -> dict[str, Any]:
    """The official Flax tree: top-level keys hold a dot ("blocks.0"), linears are "kernel" [in, out]."""
    linear = {official for _, official, how in TABLE if how == "linear"}
    tree: dict[str, Any] = {}
    for name, value in torch_weights(weights).items():
        layer, suffix = ("", name) if not name.startswith("blocks.") else _block(name)
        path = suffix.split(".")
        if suffix in linear:
            path[-1], value = "kernel", np.ascontiguousarray(value.T)
        node = tree.setdefault(layer, {}) if layer else tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return tree


def versions(half: str) -> dict[str, str]:
    """Versions of what computes the outputs of a half ("torch" or "jax")."""
    names = ("recurrentgemma", "torch") if half == "torch" else ("recurrentgemma", "jax", "flax")
    return {name: importlib.metadata.version(name) for name in names}


def torch_model(config: GriffinConfig, named: Mapping[str, Array]) -> Any:
    """The official torch module in float32, holding weights by their official names."""
    import torch
    from recurrentgemma.torch import Griffin

    model = Griffin(official_config(config), gradient_checkpointing=False, dtype=torch.float32)
    model.load_state_dict({name: torch.as_tensor(value) for name, value in named.items()})
    return model.eval()


def run_torch(config: GriffinConfig, weights: Mapping[str, Array], case: Case) -> Array:
    """Logits float32 [b t v] of the official torch code, one call per piece, its cache carried."""
    return _torch_logits(torch_model(config, torch_weights(weights)), case)


def run_torch_file(path: Path, config: GriffinConfig, case: Case) -> Array:
    """``run_torch`` on a ``.pt`` file: a flat dict by official names, loaded without running code from it."""
    import torch

    return _torch_logits(torch_model(config, torch.load(path, weights_only=True)), case)


def run_jax(config: GriffinConfig, weights: Mapping[str, Array], case: Case) -> Array:
    """Logits float32 [b t v] of the official Flax code, one call per piece, its cache carried."""
    return _jax_logits(config, {"params": flax_weights(weights)}, case)


def run_jax_directory(path: Path, config: GriffinConfig, case: Case) -> Array:
    """``run_jax`` on an orbax directory that holds the variables: ``{"params": tree}``."""
    return _jax_logits(config, restore(path), case)


def restore(path: Path) -> dict[str, Any]:
    """The variables in an orbax directory, as NumPy arrays, float32.

    The official ``load_parameters`` fails on orbax 0.12, whose metadata is no tree of arrays any more.
    """
    import jax
    import orbax.checkpoint as ocp

    tree: dict[str, Any] = ocp.PyTreeCheckpointer().restore(path.absolute())
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.float32), tree)


def _torch_logits(model: Any, case: Case) -> Array:
    import torch

    cache, logits = None, []
    with torch.no_grad():
        for tokens, positions in _pieces(case):
            piece, cache = model(torch.from_numpy(tokens), torch.from_numpy(positions), cache)
            logits.append(piece.numpy())
    return np.concatenate(logits, axis=1)


def _jax_logits(config: GriffinConfig, variables: Mapping[str, Any], case: Case) -> Array:
    import jax.numpy as jnp
    from recurrentgemma.jax import Griffin

    model = Griffin(official_config(config), gradient_checkpointing=False, dtype=jnp.float32)
    cache, logits = None, []
    for tokens, positions in _pieces(case):
        piece, cache = model.apply(variables, jnp.asarray(tokens), jnp.asarray(positions), cache)
        logits.append(np.asarray(piece))
    return np.concatenate(logits, axis=1)


def official_config(config: GriffinConfig) -> Any:
    """The official GriffinConfig of ``config``."""
    from recurrentgemma import common

    kinds = common.TemporalBlockType
    window = 2**30 if config.attention_window is None else config.attention_window - 1
    return common.GriffinConfig(
        vocab_size=config.vocab_size,
        width=config.width,
        mlp_expanded_width=config.mlp_width,
        num_heads=config.num_heads,
        block_types=tuple(kinds.ATTENTION if k == ATTENTION else kinds.RECURRENT for k in config.layer_kinds),
        embeddings_scale_by_sqrt_dim=config.embedding_scale is not None,
        attention_window_size=window,
        logits_soft_cap=config.logits_soft_cap or 0.0,
        lru_width=config.lru_width,
    )


def _pieces(case: Case) -> Iterator[tuple[Array, Array]]:
    ends = np.cumsum(case.pieces)
    for start, end in zip(ends - case.pieces, ends, strict=True):
        yield case.tokens[:, start:end].copy(), case.positions[:, start:end].copy()


def _split(canonical: str) -> tuple[str, str]:
    """("blocks.3.", suffix) of a layer's parameter, ("", name) of the others."""
    prefix = "model.layers."
    if not canonical.startswith(prefix):
        return "", canonical
    layer, suffix = canonical.removeprefix(prefix).split(".", 1)
    return f"blocks.{layer}.", suffix


def _block(name: str) -> tuple[str, str]:
    word, layer, suffix = name.split(".", 2)
    return f"{word}.{layer}", suffix
