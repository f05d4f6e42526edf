"""The config in a ``config.json`` that another program wrote, transformers 4 or 5 mostly.

Every key that decides what the model computes is looked at; a value that this library cannot compute is refused by
name, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from griffin_core.checkpoints.hf_config import EXCHANGE_TYPE, OWN_TYPE, SECTION, to_exchange
from griffin_core.config import LONGEST_WINDOW, NORM_EPS, ROPE_BASE, SQRT_WIDTH, GriffinConfig, from_dict
from griffin_core.errors import CheckpointError, ConfigError, nearest

OFFICIAL = "official"
HF = "hf"
WINDOW_CONVENTIONS = (OFFICIAL, HF)
"""What ``attention_window_size`` of a foreign config counts: keys before the query, as the weights were trained
("official"), or the query among them, as transformers computes ("hf")."""

_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
_WINDOW = "attention_window_size"
_KEY_HEADS = "num_key_value_heads"
_BLOCKS = ("block_types", "_block_types")
# key: the one value this library computes, and what an absent key means to transformers
_FIXED: dict[str, tuple[Any, Any]] = {
    "rms_norm_eps": (NORM_EPS, NORM_EPS),
    "hidden_activation": ("gelu_pytorch_tanh", "gelu_pytorch_tanh"),
    "attention_bias": (False, False),
    "rope_theta": (ROPE_BASE, ROPE_BASE),
    "partial_rotary_factor": (0.5, 0.5),
    "rope_type": ("default", "default"),
    _KEY_HEADS: (1, None),
}
_KNOWN = (
    *_REQUIRED,
    _WINDOW,
    *_BLOCKS,
    *_FIXED,
    *("model_type", "sliding_window", "lru_width", "head_dim", "conv1d_width", "rope_parameters"),
    *("logits_soft_cap", "embeddings_scale_by_sqrt_dim", "tie_word_embeddings", SECTION),
)
_SLIP = 0.85
"""Likeness (of difflib) from which a key is taken for a misspelt one: one letter of seven or more."""


def from_fields(
    path: Path, fields: Mapping[str, Any], convention: str | None = None
) -> tuple[GriffinConfig, list[str]]:
    """The config that the fields describe, and what was assumed, a sentence each.

    Args:
        path: of the file, for messages.
        fields: of ``config.json``.
        convention: one of ``WINDOW_CONVENTIONS``; None is "official". A config with a section of ours needs none.

    Raises:
        ConfigError: an unknown convention, or one for a config that needs none.
        CheckpointError: a key is missing, contradicts our section, or has a value that is not of this family.
    """
    if convention is not None and convention not in WINDOW_CONVENTIONS:
        raise ConfigError(f"unknown window convention {convention!r}; {nearest(convention, WINDOW_CONVENTIONS)}")
    if convention is not None and isinstance(fields.get(SECTION), dict):
        raise ConfigError(f"{path} has a section {SECTION!r}, which says the window exactly; give no convention")
    if SECTION in fields and not isinstance(fields[SECTION], dict):
        raise CheckpointError(f"{path} has a damaged section {SECTION!r}; copy it again, or delete the section")
    try:
        if SECTION in fields:
            return _from_section(path, fields), []
        return _translated(path, fields, convention or OFFICIAL)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _from_section(path: Path, fields: Mapping[str, Any]) -> GriffinConfig:
    """Our own section, if the keys beside it still say the same."""
    if fields.get("model_type") == OWN_TYPE:
        raise CheckpointError(f"{path} is of a native checkpoint that has no manifest: it is unfinished; copy it again")
    config = from_dict(fields[SECTION])
    ours = to_exchange(config, "float32", {})
    for key in (*_REQUIRED, _WINDOW, "lru_width", "conv1d_width", "logits_soft_cap", "tie_word_embeddings"):
        if key in fields and fields[key] != ours[key]:
            raise CheckpointError(
                f"{path}: {key} is {fields[key]!r}, but the section {SECTION!r} says {ours[key]!r}; "
                "correct one of them, or delete the section"
            )
    return config


def _translated(path: Path, fields: Mapping[str, Any], convention: str) -> tuple[GriffinConfig, list[str]]:
    if fields.get("model_type", EXCHANGE_TYPE) != EXCHANGE_TYPE:
        raise CheckpointError(f"{path} is of model_type {fields['model_type']!r}; expected {EXCHANGE_TYPE!r}")
    missing = [key for key in _REQUIRED if not isinstance(fields.get(key), int)]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}, or has no number there; copy it again")
    _check_names(path, fields)
    _check_fixed(path, fields)
    window, notes = _window(path, fields, convention)
    width, heads = fields["hidden_size"], fields["num_attention_heads"]
    if fields["intermediate_size"] % 2:
        raise CheckpointError(f"{path}: intermediate_size={fields['intermediate_size']}; expected both branches' sum")
    config = GriffinConfig(
        width=width,
        lru_width=fields.get("lru_width") or width,
        mlp_width=fields["intermediate_size"] // 2,
        num_heads=heads,
        head_dim=fields.get("head_dim") or width // max(1, heads),
        gate_blocks=heads,
        block_pattern=_pattern(path, fields),
        num_layers=fields["num_hidden_layers"],
        attention_window=window,
        conv_width=fields.get("conv1d_width", 4),
        vocab_size=fields["vocab_size"],
        logits_soft_cap=fields.get("logits_soft_cap", 30.0) or None,
        embedding_scale=SQRT_WIDTH if fields.get("embeddings_scale_by_sqrt_dim", True) else None,
        tie_embeddings=fields.get("tie_word_embeddings", True),
    )
    return config, notes


def _window(path: Path, fields: Mapping[str, Any], convention: str) -> tuple[int, list[str]]:
    value = fields.get(_WINDOW, fields.get("sliding_window", 2048))
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LONGEST_WINDOW:
        raise CheckpointError(f"{path}: {_WINDOW}={value!r}; expected a number of keys")
    if convention == HF:
        return value, [f"{_WINDOW}={value} is taken as the keys that a query sees, itself included"]
    sees = f"as these weights are trained: a query sees {value + 1} (--window-convention hf keeps the number)"
    return value + 1, [f"{_WINDOW}={value} is taken as the keys before the query, {sees}"]


def _pattern(path: Path, fields: Mapping[str, Any]) -> Any:
    given = [fields[key] for key in _BLOCKS if fields.get(key) is not None]
    if len(given) == 2 and given[0] != given[1]:
        raise CheckpointError(f"{path}: {_BLOCKS[0]} and {_BLOCKS[1]} differ; keep one of them")
    return given[0] if given else ["recurrent", "recurrent", "attention"]


def _check_names(path: Path, fields: Mapping[str, Any]) -> None:
    """An unknown key that looks like one that is absent is a slip or a flipped bit; others are not of our concern."""
    absent = [key for key in _KNOWN if key not in fields]
    for key in fields:
        close = [] if key in _KNOWN else get_close_matches(key, absent, 1, _SLIP)
        if close:
            raise CheckpointError(f"{path} has an unknown key {key!r}; did you mean {close[0]!r}?")


def _check_fixed(path: Path, fields: Mapping[str, Any]) -> None:
    rope = fields.get("rope_parameters")
    single = fields["num_attention_heads"] == 1  # then as many key heads as query heads are one
    for key, (only, absent) in _FIXED.items():
        given = [place[key] for place in (fields, rope) if isinstance(place, Mapping) and place.get(key) is not None]
        for value in given or [1 if key == _KEY_HEADS and single else absent]:
            if value != only:
                raise CheckpointError(f"{path}: {key}={value!r}; models of this family have {only!r}")
