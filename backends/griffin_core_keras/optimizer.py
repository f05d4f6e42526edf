"""AdamW in the form of the spec, and its learning-rate schedule, as Keras objects.

Keras's own Adam adds epsilon to another quantity (its first update differs by up to 0.7 of the learning rate). Here,
as in PyTorch and optax, it is added to sqrt(v_hat). Clipping by the global norm, decay and the moments are one update,
and a step whose gradient norm is not finite changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from griffin_core.schedules import TrainerOptions
from griffin_core_keras.engine import engine
from griffin_core_keras.layers.base import register

DECAYED = ("kernel", "lora_kernel_a", "lora_kernel_b")
"""Names of the variables that decay: the matrices that the parameter table marks, and adapters of them."""


@register
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a cosine to a fraction of the peak (``griffin_core.schedules.learning_rate``).

    Args:
        learning_rate: the peak, reached after ``warmup`` steps.
        steps: of the whole run.
        warmup: steps of linear warm-up.
        final_fraction: the rate at the end, as a fraction of the peak.
    """

    def __init__(self, learning_rate: float, steps: int, warmup: int = 20, final_fraction: float = 0.1) -> None:
        super().__init__()
        self.learning_rate, self.steps, self.warmup, self.final_fraction = learning_rate, steps, warmup, final_fraction

    def __call__(self, step: Any) -> Any:
        """The rate of step ``step``; the first is 0."""
        at = ops.cast(step, "float32")
        rising = self.learning_rate * (at + 1.0) / max(self.warmup, 1)
        progress = ops.minimum((at - self.warmup) / max(1, self.steps - self.warmup), 1.0)
        cosine = 0.5 * (1.0 + ops.cos(math.pi * progress))
        falling = self.learning_rate * (self.final_fraction + (1.0 - self.final_fraction) * cosine)
        return ops.where(at < self.warmup, rising, falling)

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        fields = ("learning_rate", "steps", "warmup", "final_fraction")
        return {name: getattr(self, name) for name in fields}


@register
class AdamW(keras.optimizers.Optimizer):
    """AdamW as the other backends' trainers have it.

    Args:
        learning_rate: a number, or a schedule such as ``WarmupCosine``.
        weight_decay: decoupled, on variables named in ``DECAYED``.
        beta_1, beta_2, epsilon: epsilon is added to sqrt(v_hat).
        global_clipnorm: gradients are scaled down to this norm; None is off.

    Attributes:
        grad_norm: variable with the global norm of the last step's gradients, before clipping.
        updates: variable with the number of updates made; a step that is not finite makes none.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        weight_decay: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.95,
        epsilon: float = 1e-8,
        global_clipnorm: float | None = 1.0,
        name: str = "griffin_adamw",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            name=name,
            **kwargs,
        )
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    @classmethod
    def from_options(cls, options: TrainerOptions) -> AdamW:
        """The optimiser and schedule that a trainer's options describe."""
        rate = WarmupCosine(options.learning_rate, options.steps, options.warmup, options.final_fraction)
        clip = options.clip_norm or None
        return cls(rate, options.weight_decay, options.beta1, options.beta2, options.epsilon, clip)

    def build(self, variables: Sequence[Any]) -> None:
        """Two moments for each variable, float32."""
        if self.built:
            return
        super().build(variables)
        self.first, self.second = ([self._moment(v, name) for v in variables] for name in ("first", "second"))
        self.grad_norm = self.add_variable((), dtype="float32", name="grad_norm")
        self.updates = self.add_variable((), dtype="float32", name="updates")

    def _moment(self, variable: Any, name: str) -> Any:
        """Zeros beside a variable, float32 whatever its dtype, and split over devices as it is."""
        layout = getattr(variable, "_layout", None)
        path = variable.path.replace("/", "_")
        return self.add_variable(variable.shape, dtype="float32", layout=layout, name=f"{path}_{name}")

    def _clip_gradients(self, grads: Any) -> Any:
        return grads  # with the update

    def _apply_weight_decay(self, variables: Any) -> None:
        """With the update."""

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        """Clip, decay and move every variable, or none where the norm is not finite."""
        places = [self._get_variable_index(variable) for variable in trainable_variables]
        first, second = [self.first[i] for i in places], [self.second[i] for i in places]
        norm = ops.sqrt(sum(ops.sum(ops.square(ops.cast(grad, "float32"))) for grad in grads))
        self.grad_norm.assign(norm)
        decays = [self.weight_decay if variable.name in DECAYED else 0.0 for variable in trainable_variables]
        fused = getattr(engine, "adamw", None)  # it takes arrays of one dtype
        if fused is not None and all(variable.dtype == "float32" for variable in trainable_variables):
            fused(self, trainable_variables, first, second, grads, decays, learning_rate, norm)
            return
        groups = (trainable_variables, first, second)
        values = [[ops.convert_to_tensor(variable) for variable in group] for group in groups]
        count = ops.convert_to_tensor(self.updates)

        def move() -> Any:
            return *self._moved(values, grads, decays, learning_rate, norm, count + 1.0), count + 1.0

        *new, count = ops.cond(ops.isfinite(norm), move, lambda: (*values, count))
        for group, found in zip(groups, new, strict=True):
            for variable, value in zip(group, found, strict=True):
                variable.assign(value)
        self.updates.assign(count)

    def _moved(
        self, values: Any, grads: Any, decays: list[float], rate: Any, norm: Any, count: Any
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """(parameters, first moments, second moments) after one update."""
        limit = self.global_clipnorm
        scale = 1.0 if limit is None else ops.where(norm > limit, limit / norm, 1.0)
        rate = ops.cast(rate, "float32")
        rise_1, rise_2 = (1.0 - ops.power(beta, count) for beta in (self.beta_1, self.beta_2))
        out: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        for value, first, second, grad, decay in zip(*values, grads, decays, strict=True):
            grad = ops.cast(grad, first.dtype) * scale
            first = self.beta_1 * first + (1.0 - self.beta_1) * grad
            second = self.beta_2 * second + (1.0 - self.beta_2) * ops.square(grad)
            step = (first / rise_1) / (ops.sqrt(second / rise_2) + self.epsilon)
            step = step + decay * ops.cast(value, "float32") if decay else step
            moved = ops.cast(ops.cast(value, "float32") - rate * step, value.dtype)
            for group, new in zip(out, (moved, first, second), strict=True):
                group.append(new)
        return out

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        fields = {name: getattr(self, name) for name in ("beta_1", "beta_2", "epsilon")}
        return {**super().get_config(), **fields}
