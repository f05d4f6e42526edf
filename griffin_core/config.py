"""The architecture as one frozen record. Families are configs, not classes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from griffin_core.errors import ConfigError, nearest

RG_LRU_C = 8.0
"""The constant c of the recurrence gate (Griffin, section 2.4)."""
NORM_EPS = 1e-6
"""Epsilon of every RMSNorm."""
ROPE_BASE = 10_000.0
"""Base of the rotary frequencies."""

RECURRENT = "recurrent"
ATTENTION = "attention"
SQRT_WIDTH = "sqrt_width"

_LARGEST = 2**28
"""Of every count: larger ones are damage, and no size that follows from these leaves 64 bits."""
_MOST_LAYERS = 10_000
LONGEST_WINDOW = 2**31
"""Keys that a window may have: more than any text has positions."""

_COUNTS = ("width", "lru_width", "mlp_width", "num_heads", "head_dim", "gate_blocks", "num_layers", "vocab_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GriffinConfig:
    """Everything that decides names and shapes of parameters and what a forward pass computes.

    Kernel, compute dtype and device are call options, never fields here.

    Attributes:
        width: model width m.
        lru_width: recurrent width d.
        mlp_width: width f of each branch of the gated MLP.
        num_heads: query heads n (one key and value head: MQA).
        head_dim: head size e; the first half of it is rotated.
        gate_blocks: blocks h of the block-diagonal gates; divides ``lru_width``.
        block_pattern: kinds of temporal blocks, cycled over the layers.
        num_layers: number of residual blocks.
        attention_window: keys that a query sees, itself included; None is global attention.
        conv_width: taps w of the depthwise causal convolution.
        vocab_size: rows of the embedding.
        logits_soft_cap: c of ``c * tanh(logits / c)``; None is no cap.
        embedding_scale: None, or "sqrt_width" (sqrt(width) rounded to bfloat16).
        tie_embeddings: the output projection is the embedding.
    """

    width: int
    lru_width: int
    mlp_width: int
    num_heads: int
    head_dim: int
    gate_blocks: int
    block_pattern: tuple[str, ...]
    num_layers: int
    attention_window: int | None
    vocab_size: int
    conv_width: int = 4
    logits_soft_cap: float | None = None
    embedding_scale: str | None = None
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_pattern", _as_pattern(self.block_pattern))
        for name in _COUNTS:
            _require_count(name, getattr(self, name), 1, _MOST_LAYERS if name == "num_layers" else _LARGEST)
        _require_count("conv_width", self.conv_width, 2, _LARGEST)
        if self.attention_window is not None:
            _require_count("attention_window", self.attention_window, 1, LONGEST_WINDOW)
        if self.lru_width % self.gate_blocks:
            raise ConfigError(
                f"gate_blocks={self.gate_blocks} does not divide lru_width={self.lru_width}; choose a divisor"
            )
        if self.head_dim % 4:
            raise ConfigError(f"head_dim={self.head_dim} is not a multiple of 4; half of it is rotated in pairs")
        object.__setattr__(self, "logits_soft_cap", _as_soft_cap(self.logits_soft_cap))
        if self.embedding_scale not in (None, SQRT_WIDTH):
            raise ConfigError(f"embedding_scale={self.embedding_scale!r}; expected null or {SQRT_WIDTH!r}")
        if not isinstance(self.tie_embeddings, bool):
            raise ConfigError(f"tie_embeddings={self.tie_embeddings!r}; expected true or false")

    @property
    def layer_kinds(self) -> tuple[str, ...]:
        """The kind of each layer: the pattern cycled and cut to ``num_layers``."""
        return tuple(self.block_pattern[i % len(self.block_pattern)] for i in range(self.num_layers))

    @property
    def block_width(self) -> int:
        """k, the width of one gate block."""
        return self.lru_width // self.gate_blocks

    @property
    def has_global_attention(self) -> bool:
        """Whether some layer's cache grows with the text, so that a state needs a capacity."""
        return self.attention_window is None and ATTENTION in self.layer_kinds

    @property
    def embedding_multiplier(self) -> float:
        """The factor on embeddings: 1, or sqrt(width) rounded to bfloat16 (50.5 for width 2560)."""
        if self.embedding_scale is None:
            return 1.0
        import ml_dtypes

        return float(ml_dtypes.bfloat16(self.width**0.5))

    def replace(self, **changes: Any) -> GriffinConfig:
        """A copy with some fields changed and checked again."""
        return from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict with every field."""
        fields = dataclasses.asdict(self)
        fields["block_pattern"] = list(self.block_pattern)
        return fields

    def to_json(self) -> str:
        """The config as JSON text; ``from_json`` is the inverse."""
        return json.dumps(self.to_dict(), indent=2)

    def digest(self) -> str:
        """SHA-256 over the canonical JSON: equal configs have equal digests."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def from_dict(fields: Mapping[str, Any]) -> GriffinConfig:
    """The config that ``fields`` describe.

    Raises:
        ConfigError: a key is unknown (the nearest name is given), missing, or its value illegal.
    """
    known = {field.name: field for field in dataclasses.fields(GriffinConfig)}
    for name in fields:
        if name not in known:
            raise ConfigError(f"unknown config key {name!r}; {nearest(str(name), known)}")
    missing = [n for n, f in known.items() if n not in fields and f.default is dataclasses.MISSING]
    if missing:
        raise ConfigError(f"config lacks {', '.join(missing)}; every key without a default must be given")
    return GriffinConfig(**fields)


def from_json(text: str | bytes) -> GriffinConfig:
    """The config in a JSON text (or its bytes) written by ``GriffinConfig.to_json``.

    Raises:
        ConfigError: the text is not a JSON object, or ``from_dict`` refuses it.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"config is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"config is a JSON {type(fields).__name__}; expected an object")
    return from_dict(fields)


def _as_pattern(pattern: Any) -> tuple[str, ...]:
    if not isinstance(pattern, list | tuple) or not pattern:
        raise ConfigError(f"block_pattern={pattern!r}; expected a list of {RECURRENT!r} and {ATTENTION!r}")
    kinds = tuple(pattern)
    for kind in kinds:
        if kind not in (RECURRENT, ATTENTION):
            raise ConfigError(f"block_pattern has {kind!r}; {nearest(str(kind), (RECURRENT, ATTENTION))}")
    return kinds


def _as_soft_cap(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value <= sys.float_info.max:
        raise ConfigError(f"logits_soft_cap={value!r}; expected a positive number, or null for no cap")
    return float(value)


def _require_count(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}={value!r}; expected an integer of at least {least}")
    if value > most:
        raise ConfigError(f"{name}={value!r}; expected an integer of at most {most}")
