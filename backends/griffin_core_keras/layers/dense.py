"""The dense layer: Keras's own, with the products of the engine's backend."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from griffin_core.errors import ConfigError
from griffin_core_keras.engine import engine
from griffin_core_keras.layers.base import register


@register
class Dense(keras.layers.Dense):
    """``keras.layers.Dense`` whose products of [b t in] have full precision in float32 and accumulate in float32.

    LoRA and quantisation are Keras's own. Arguments as there.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """x kernel + bias."""
        if len(inputs.shape) != 3 or self.activation is not keras.activations.linear:
            return super().call(inputs, training=training)
        bias = None if self.bias is None else ops.convert_to_tensor(self.bias)
        return engine.dense(inputs, ops.convert_to_tensor(self.kernel), bias)

    def quantize(self, mode: Any = None, type_check: bool = True, config: Any = None) -> None:
        """Replace the kernel by a quantised one; Keras refuses subclasses that do not say that they know it."""
        super().quantize(mode, type_check=False, config=config)

    def float_kernel(self) -> Any:
        """The kernel [in out] that the layer computes with: adapted, or widened from integers."""
        if self.quantization_mode is None:
            return ops.convert_to_tensor(self.kernel)
        if self.quantization_mode != "int8":
            raise ConfigError(f"{self.path} is quantised as {self.quantization_mode}; only int8 can be widened again")
        wide = ops.cast(self._kernel, "float32") / ops.cast(self.kernel_scale, "float32")
        if not self.lora_enabled:
            return wide
        return wide + (self.lora_alpha / self.lora_rank) * ops.matmul(self.lora_kernel_a, self.lora_kernel_b)
