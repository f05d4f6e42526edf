"""Run transformers' RecurrentGemma on a case, from canonical weights or from a directory.

Its parameter names are the canonical ones. Its window counts the query itself, as ours does; its
``intermediate_size`` counts both branches of the MLP.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
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


def load(path: Path) -> Any:
    """The model in a directory, in float32.

    Raises:
        ValueError: a tensor is missing or has no place in the model; transformers itself only warns.
    """
    import torch
    from transformers import AutoModelForCausalLM

    made, found = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    if strangers := {kind: found[kind] for kind in kinds if found[kind]}:
        raise ValueError(f"{path}: {strangers}")
    return made.eval()


def run(config: GriffinConfig, weights: Mapping[str, Array], case: Case, window: int) -> Array:
    """Logits float32 [b t v] of canonical weights."""
    return logits(model(config, weights, window), case)


def run_directory(path: Path, config: GriffinConfig, case: Case) -> Array:
    """Logits float32 [b t v] of a directory, which says itself what ``config`` says."""
    return logits(load(path), case)


def logits(made: Any, case: Case) -> Array:
    """Logits float32 [b t v], one call per piece, called the way ``generate`` calls the model.

    Padding becomes an attention mask and position 0. One piece runs without a cache, as in training.
    """
    import torch

    positions = torch.from_numpy(np.maximum(case.positions, 0)).long()
    mask = torch.from_numpy((case.positions >= 0).astype(np.int64))
    shared: dict[str, Any] = {"use_cache": False}
    if len(case.pieces) > 1:
        from transformers import DynamicCache

        shared = {"use_cache": True, "past_key_values": DynamicCache(config=made.config)}
    pieces, start = [], 0
    with torch.no_grad():
        for length in case.pieces:
            end = start + length
            call = dict(shared, position_ids=positions[:, start:end])
            if (case.positions < 0).any():
                call["attention_mask"] = mask[:, :end]
            tokens = torch.from_numpy(case.tokens[:, start:end].astype(np.int64))
            pieces.append(made(input_ids=tokens, **call).logits.numpy())
            start = end
    return np.concatenate(pieces, axis=1)


def generate(path: Path, prompt: str, length: int) -> list[int]:
    """Token ids of the prompt and its greedy continuation by ``length``, with the directory's own tokenizer."""
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(path)(prompt, return_tensors="pt")
    ids: list[int] = load(path).generate(**tokens, do_sample=False, max_new_tokens=length)[0].tolist()
    return ids
