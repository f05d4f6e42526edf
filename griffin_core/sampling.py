"""How the next token is chosen: the settings, and the per-row memory a sampler needs.

The algorithm (order of filters, ties, generator) is ``reference/sampling.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from griffin_core.errors import ConfigError
from griffin_core.shapes import Array


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of the sampler, applied in this order.

    Attributes:
        repetition_penalty: logits of the last ``repetition_window`` tokens are divided (if positive) or
            multiplied (if negative) by it; 1 is off.
        repetition_window: how many of the last tokens the penalty covers.
        temperature: 0 is greedy (the lowest id among equals); else logits are divided by it.
        top_k: keep the k most probable tokens; 0 is off.
        top_p: keep the fewest most probable tokens whose probabilities reach p; 1 is off.
        min_p: keep tokens at least min_p times as probable as the most probable; 0 is off.
        seed: key of the counter-based generator; row r of a batch uses seed + r.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p", "repetition_penalty"):
            value = getattr(self, name)
            _require(name, value, isinstance(value, int | float) and math.isfinite(value), "a number")
        _require("temperature", self.temperature, self.temperature >= 0.0, "a number of at least 0")
        _require("top_k", self.top_k, isinstance(self.top_k, int) and self.top_k >= 0, "an integer of at least 0")
        _require("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "a number in (0, 1]")
        _require("min_p", self.min_p, 0.0 <= self.min_p <= 1.0, "a number in [0, 1]")
        penalty = self.repetition_penalty
        _require("repetition_penalty", penalty, penalty > 0.0, "a positive number")
        window = self.repetition_window
        _require("repetition_window", window, isinstance(window, int) and window >= 0, "an integer of at least 0")
        _require("seed", self.seed, isinstance(self.seed, int) and 0 <= self.seed < 2**63, "an integer in [0, 2^63)")

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature == 0.0


@dataclass(frozen=True)
class SamplingRows:
    """What ``decode`` needs per row: the settings, each row's seed and its last tokens.

    Attributes:
        settings: shared by all rows.
        seeds: int64 [b], keys of the generator.
        recent: int32 [b repetition_window], the last tokens, oldest first; -1 is empty. The token that
            ``decode`` is given is already among them.
    """

    settings: Sampling
    seeds: Array = field(repr=False)
    recent: Array = field(repr=False)

    @classmethod
    def start(cls, settings: Sampling, histories: list[list[int]]) -> SamplingRows:
        """Rows for these token histories (one list per row)."""
        recent = np.full((len(histories), settings.repetition_window), -1, np.int32)
        for row, history in enumerate(histories):
            tail = history[-settings.repetition_window :] if settings.repetition_window else []
            recent[row, len(recent[row]) - len(tail) :] = tail
        return cls(settings, settings.seed + np.arange(len(histories), dtype=np.int64), recent)

    def push(self, tokens: Array, active: Array | None = None) -> SamplingRows:
        """The rows after one more token each (int [b]); rows that are not ``active`` (bool [b]) stay as they are."""
        if not self.settings.repetition_window:
            return self
        recent = np.concatenate([self.recent[:, 1:], np.asarray(tokens, np.int32)[:, None]], axis=1)
        if active is not None:
            recent = np.where(np.asarray(active)[:, None], recent, self.recent)
        return replace(self, recent=recent)


def _require(name: str, value: object, legal: bool, expected: str) -> None:
    if isinstance(value, bool) or not legal:
        raise ConfigError(f"{name}={value!r}; expected {expected}")
