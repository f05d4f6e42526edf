"""Run transformers' RecurrentGemma on a case, from canonical weights.

Its parameter names are the canonical ones. Its window counts the query itself, as ours does; its
``intermediate_size`` counts both branches of the MLP.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np
from golden_cases import Case

from griffin_core.config import GriffinConfig
from griffin_core.shapes import Array


def versions() -> dict[str, str]:
    """Versions of what computes the outputs."""
    return {name: importlib.metadata.version(name) for name in ("transformers", "torch")}


def hf_config(config: GriffinConfig, window: int) -> Any:
    """The RecurrentGemmaConfig of ``config`` with ``attention_window_size = window``."""
    from transformers import RecurrentGemmaConfig

    return RecurrentGemmaConfig(
        num_hidden_layers=config.num_layers,
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        intermediate_size=2 * config.mlp_width,
        num_attention_heads=config.num_heads,
        num_key_value_heads=1,
        lru_width=config.lru_width,
        attention_window_size=window,
        conv1d_width=config.conv_width,
        logits_soft_cap=config.logits_soft_cap,
        block_types=list(config.block_pattern),
        attn_implementation="eager",
    )


def model(config: GriffinConfig, weights: Mapping[str, Array], window: int) -> Any:
    """A fresh RecurrentGemmaForCausalLM in float32: fresh, because it keeps decode states on its modules."""
    import torch
    from transformers import RecurrentGemmaForCausalLM

    made = RecurrentGemmaForCausalLM(hf_config(config, window)).eval()
    state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in weights.items()}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    made.load_state_dict(state)
    return made


def run(config: GriffinConfig, weights: Mapping[str, Array], case: Case, window: int) -> Array:
    """Logits float32 [b t v], one call per piece, called the way ``generate`` calls the model.

    Padding becomes an attention mask and position 0. One piece runs without a cache, as in training.
    """
    import torch

    made = model(config, weights, window)
    positions = torch.from_numpy(np.maximum(case.positions, 0)).long()
    mask = torch.from_numpy((case.positions >= 0).astype(np.int64))
    shared: dict[str, Any] = {"use_cache": False}
    if len(case.pieces) > 1:
        from transformers import DynamicCache

        shared = {"use_cache": True, "past_key_values": DynamicCache(config=made.config)}
    logits, start = [], 0
    with torch.no_grad():
        for length in case.pieces:
            end = start + length
            call = dict(shared, position_ids=positions[:, start:end])
            if (case.positions < 0).any():
                call["attention_mask"] = mask[:, :end]
            tokens = torch.from_numpy(case.tokens[:, start:end].astype(np.int64))
            logits.append(made(input_ids=tokens, **call).logits.numpy())
            start = end
    return np.concatenate(logits, axis=1)
