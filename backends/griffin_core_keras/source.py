"""A Keras model as the place where ``model.run_hidden`` finds its layers."""

from __future__ import annotations

from typing import Any

import keras

from griffin_core_keras.blocks import Call, LayerState
from griffin_core_keras.model import Layer


class LayerSource:
    """The layers of a ``GriffinCausalLM``; each is called, so adapters, quantisation and policies act."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def embed(self, tokens: Any) -> Any:
        """Rows of the embedding."""
        return keras.ops.cast(self.model.embedding(tokens), self.model.compute_dtype)

    def layer(self, index: int, kind: str) -> Layer:
        """The residual block."""
        block = getattr(self.model, f"layer_{index}")

        def run(x: Any, call: Call, state: LayerState | None) -> tuple[Any, dict[str, Any]]:
            found: tuple[Any, dict[str, Any]] = block(x, state=state, call=call)
            return found

        return run

    def final(self, x: Any) -> Any:
        """The final norm."""
        return self.model.final_norm(x)


def recomputed(layer: Layer) -> Layer:
    """The layer with only its input kept for the backward pass."""

    def run(x: Any, call: Call, state: LayerState | None) -> tuple[Any, dict[str, Any]]:
        if state is not None or call.record is not None:
            return layer(x, call, state)
        return keras.remat(lambda x: layer(x, call, None)[0])(x), {}

    return run
