"""``config.json``: the keys that other programs of this family read, and our exact config beside them.

transformers 4 and 5, mlx-lm and candle each want other keys (``rope_theta`` and ``rope_parameters``,
``torch_dtype`` and ``dtype``), so all are written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffin_core.config import ATTENTION, NORM_EPS, RECURRENT, ROPE_BASE, SQRT_WIDTH, GriffinConfig, from_dict
from griffin_core.errors import CheckpointError, ConfigError

CONFIG_FILE = "config.json"
SECTION = "griffin"
"""Key of our exact config inside ``config.json``."""

EXCHANGE_TYPE = "recurrent_gemma"
OWN_TYPE = "griffin"


def inexpressible(config: GriffinConfig) -> list[str]:
    """What the family's exchange config cannot say, one phrase per field; empty when it says all."""
    c = config
    limits = (
        (c.lru_width == c.width, f"lru_width={c.lru_width} (must equal width={c.width})"),
        (c.gate_blocks == c.num_heads, f"gate_blocks={c.gate_blocks} (must equal num_heads={c.num_heads})"),
        (c.head_dim * c.num_heads == c.width, f"head_dim={c.head_dim} (must be width / num_heads)"),
        (c.attention_window is not None, "attention_window=null (must be a number)"),
        (c.logits_soft_cap is not None, "logits_soft_cap=null (must be a number)"),
        (c.embedding_scale == SQRT_WIDTH, f"embedding_scale={c.embedding_scale} (must be {SQRT_WIDTH!r})"),
        (c.tie_embeddings, "tie_embeddings=false (must be true)"),
        (
            {ATTENTION, RECURRENT} <= set(c.layer_kinds),
            f"block_pattern={list(c.block_pattern)} (must have both kinds within the layers)",
        ),
    )
    return [phrase for fits, phrase in limits if not fits]


def to_exchange(config: GriffinConfig, dtype: str, special_ids: Mapping[str, int | None]) -> dict[str, Any]:
    """The content of ``config.json``.

    Args:
        dtype: the weights' dtype by name.
        special_ids: ids under "bos", "eos" and "pad" (absent or None where the tokenizer has none).
    """
    expressible = not inexpressible(config)
    head: dict[str, Any] = {"model_type": EXCHANGE_TYPE if expressible else OWN_TYPE}
    if expressible:
        head["architectures"] = ["RecurrentGemmaForCausalLM"]
    return {
        **head,
        "hidden_size": config.width,
        "lru_width": config.lru_width,
        "intermediate_size": 2 * config.mlp_width,  # readers halve it: one half per branch
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": 1,
        "head_dim": config.head_dim,
        "attention_window_size": config.attention_window,
        "block_types": list(config.block_pattern),
        "conv1d_width": config.conv_width,
        "vocab_size": config.vocab_size,
        "logits_soft_cap": config.logits_soft_cap,
        "embeddings_scale_by_sqrt_dim": config.embedding_scale == SQRT_WIDTH,
        "tie_word_embeddings": config.tie_embeddings,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_BASE,
        "partial_rotary_factor": 0.5,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE, "partial_rotary_factor": 0.5},
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "w_init_variance_scale": 0.01,
        "final_w_init_variance_scale": 2.0 / config.num_layers,
        "use_cache": True,
        **{f"{role}_token_id": special_ids.get(role) for role in ("pad", "eos", "bos")},
        "torch_dtype": dtype,
        "dtype": dtype,
        SECTION: config.to_dict(),
    }


def parse(path: Path, text: bytes) -> dict[str, Any]:
    """The fields of a ``config.json``.

    Raises:
        CheckpointError: the text is not a JSON object.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}); copy it again") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} is a JSON {type(fields).__name__}; expected an object")
    return fields


def from_exchange(path: Path, text: bytes) -> GriffinConfig:
    """Our config in a ``config.json`` that this library wrote.

    Raises:
        CheckpointError: the text is not JSON, has no section of ours, or the section is not legal.
    """
    section = parse(path, text).get(SECTION)
    if not isinstance(section, dict):
        raise CheckpointError(f"{path} has no {SECTION!r} section; a native checkpoint's config.json has one")
    try:
        return from_dict(section)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
