"""The embedding, which is the output projection too where a model ties them, and a projection of its own."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from griffin_core_keras.engine import engine
from griffin_core_keras.layers.base import Layer, register


@register
class Embedding(keras.layers.ReversibleEmbedding):
    """``keras.layers.ReversibleEmbedding`` with float32 logits; arguments as there."""

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        """Rows [b t m] of the ids [b t]; with ``reverse`` float32 logits [b t v] of x [b t m]."""
        if not reverse:
            return super().call(inputs)
        return engine.project(inputs, self.matrix())

    def quantize(self, mode: Any = None, type_check: bool = True, config: Any = None) -> None:
        """Nothing: the parameter table lets dense kernels alone be quantised."""

    def matrix(self) -> Any:
        """The matrix [v m]."""
        return ops.convert_to_tensor(self.embeddings)


@register
class Projection(Layer):
    """Logits from hidden states, for models whose output projection is not the embedding.

    Args:
        units: vocabulary size v.
        initializer: of the weight [v m].
    """

    def __init__(self, units: int, initializer: Any = "glorot_uniform", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """The weight [v m], as the checkpoints of the family have it."""
        self.weight = self.add_weight(name="weight", shape=(self.units, input_shape[-1]), initializer=self.initializer)

    def call(self, x: Any) -> Any:
        """x [b t m] to float32 logits [b t v]."""
        return engine.project(x, self.matrix())

    def matrix(self) -> Any:
        """The weight [v m]."""
        return ops.convert_to_tensor(self.weight)

    def compute_output_shape(self, input_shape: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        """[b t v]."""
        return (*input_shape[:-1], self.units)

    def compute_output_spec(self, x: Any) -> Any:
        """Float32 [b t v]."""
        return keras.KerasTensor((*x.shape[:-1], self.units), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        return {
            **super().get_config(),
            "units": self.units,
            "initializer": keras.initializers.serialize(self.initializer),
        }
