"""RMSNorm in the family's form."""

from __future__ import annotations

from typing import Any

import keras

from griffin_core.config import NORM_EPS
from griffin_core_keras.engine import engine
from griffin_core_keras.layers.base import Layer, register


@register
class RMSNorm(Layer):
    """x / sqrt(mean(x^2) + epsilon) * (1 + scale) over the last axis, in float32.

    Not ``keras.layers.RMSNormalization``: that one multiplies by its scale. To hold 1 + scale in it would round the
    checkpoint's values, and weight decay would pull them to another point.

    Args:
        epsilon: added to the mean square.
    """

    def __init__(self, epsilon: float = NORM_EPS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """One scale for each entry of the last axis, zeros at first."""
        self.scale = self.add_weight(name="scale", shape=(input_shape[-1],), initializer="zeros")

    def call(self, x: Any) -> Any:
        """[... m] to [... m], in x's dtype."""
        return engine.rms_norm(x, keras.ops.convert_to_tensor(self.scale), self.epsilon)

    def compute_output_spec(self, x: Any) -> Any:
        """The shape of x."""
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        return {**super().get_config(), "epsilon": self.epsilon}
