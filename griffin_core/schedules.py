"""The optimiser's settings and the learning-rate schedule, shared by every backend's trainer."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from griffin_core.errors import ConfigError, nearest

ADAMW = "adamw"
SCHEDULE_FREE = "schedule-free"
OPTIMIZERS = (ADAMW, SCHEDULE_FREE)


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """AdamW in the optax and torch form, warm-up and cosine, clipping, precision.

    Attributes:
        steps: steps of the whole run; the schedule ends there.
        learning_rate: peak rate, reached after ``warmup`` steps.
        final_fraction: the rate at the end, as a fraction of the peak.
        warmup: steps of linear warm-up.
        beta1, beta2, epsilon: AdamW; epsilon is added to sqrt(v_hat).
        weight_decay: decoupled, on the parameters that the parameter table marks.
        clip_norm: the global gradient norm is scaled down to it; 0 is off.
        compute_dtype: dtype of products; parameters and moments stay float32.
        checkpoint_activations: recompute each residual block in the backward pass.
        optimizer: "adamw", or "schedule-free": AdamW without a falling rate, evaluated at an average of its points.
    """

    steps: int
    learning_rate: float = 3e-3
    final_fraction: float = 0.1
    warmup: int = 20
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    compute_dtype: str = "float32"
    checkpoint_activations: bool = False
    optimizer: str = ADAMW

    def __post_init__(self) -> None:
        for name, lowest in (("steps", 1), ("warmup", 0)):
            value = getattr(self, name)
            _require(name, value, isinstance(value, int) and value >= lowest, f"an integer of at least {lowest}")
        for name in ("learning_rate", "epsilon"):
            value = getattr(self, name)
            _require(name, value, _finite(value) and value > 0, "a positive number")
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            _require(name, value, _finite(value) and value >= 0, "a number of at least 0")
        for name in ("beta1", "beta2", "final_fraction"):
            value = getattr(self, name)
            _require(name, value, _finite(value) and 0.0 <= value <= 1.0, "a number in [0, 1]")
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"compute_dtype={self.compute_dtype!r}; expected float32 or bfloat16")
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"optimizer={self.optimizer!r}; {nearest(str(self.optimizer), OPTIMIZERS)}")
        if self.optimizer == SCHEDULE_FREE and self.beta1 == 0.0:
            raise ConfigError("beta1=0.0; the schedule-free optimizer averages with it and needs more than 0")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict with every field."""
        return asdict(self)


def learning_rate(step: int, options: TrainerOptions) -> float:
    """The rate of step ``step`` (0 is the first): linear warm-up, then a cosine to ``final_fraction``.

    The schedule-free optimiser stays at the peak.
    """
    peak = options.learning_rate
    if step < options.warmup:
        return peak * (step + 1) / options.warmup
    if options.optimizer == SCHEDULE_FREE:
        return peak
    span = max(1, options.steps - options.warmup)
    progress = min(1.0, (step - options.warmup) / span)
    floor = options.final_fraction
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _require(name: str, value: object, legal: bool, expected: str) -> None:
    if isinstance(value, bool) or not legal:
        raise ConfigError(f"{name}={value!r}; expected {expected}")
