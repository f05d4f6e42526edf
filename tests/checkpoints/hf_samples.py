"""Hugging Face directories as other programs write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from griffin_core.config import GriffinConfig
from griffin_core.shapes import Array

_SHARED = {
    "architectures": ["RecurrentGemmaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "hidden_activation": "gelu_pytorch_tanh",
    "model_type": "recurrent_gemma",
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "use_cache": True,
    "w_init_variance_scale": 0.01,
}


def fields(config: GriffinConfig, version: int = 5, blocks: str = "block_types") -> dict[str, Any]:
    """``config.json`` as transformers 4 or 5 writes it: the window counts keys before the query."""
    rope = {"partial_rotary_factor": 0.5, "rope_theta": 10000.0}
    return {
        **_SHARED,
        "attention_window_size": (config.attention_window or 0) - 1,
        blocks: list(config.block_pattern),
        "conv1d_width": config.conv_width,
        "head_dim": config.head_dim,
        "hidden_size": config.width,
        "intermediate_size": 2 * config.mlp_width,
        "logits_soft_cap": config.logits_soft_cap,
        "lru_width": config.lru_width,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "vocab_size": config.vocab_size,
        **(rope if version == 4 else {"rope_parameters": {**rope, "rope_type": "default"}}),
        **({"torch_dtype": "bfloat16"} if version == 4 else {"dtype": "bfloat16", "tie_word_embeddings": True}),
        "transformers_version": "4.57.3" if version == 4 else "5.23.0",
    }


def write(directory: Path, config_fields: Mapping[str, Any], params: Mapping[str, Array]) -> Path:
    """One safetensors file and the config, nothing else."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config_fields, indent=2))
    save_file(dict(params), directory / "model.safetensors", metadata={"format": "pt"})
    return directory
