"""Run google-deepmind/recurrentgemma (torch and Flax halves) on a case, from canonical weights.

The official window W lets a query see itself and W keys before it: ours is W + 1.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from golden_cases import Case

from griffin_core.config import ATTENTION, GriffinConfig
from griffin_core.layouts.official import FLAX, TORCH, Form
from griffin_core.shapes import Array


def torch_weights(weights: Mapping[str, Array]) -> dict[str, Array]:
    """The official torch checkpoint's flat dict: linears [out, in], gate and up branches stacked."""
    return _placed(weights, TORCH)


def flax_weights(weights: Mapping[str, Array]) -> dict[str, Any]:
    """The official Flax tree: top-level keys hold a dot ("blocks.0"), linears are "kernel" [in, out]."""
    tree: dict[str, Any] = {}
    for name, value in _placed(weights, FLAX).items():
        *path, last = name.split(FLAX.separator)
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = value
    return tree


def _placed(weights: Mapping[str, Array], form: Form) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for canonical, value in weights.items():
        place = form.place_of(canonical)
        official = found.setdefault(place.stored, np.empty(place.shape(value.shape), value.dtype))
        place.take(official)[...] = value
    return found


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
    """``run_jax`` on an orbax directory that holds the parameters, with or without a level "params" around them."""
    tree = restore(path)
    return _jax_logits(config, tree if set(tree) == {"params"} else {"params": tree}, case)


def restore(path: Path) -> dict[str, Any]:
    """What an orbax directory holds, as NumPy arrays, float32.

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
