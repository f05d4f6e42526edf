"""The gated MLP (Griffin, section 2.2)."""

from __future__ import annotations

from typing import Any

from griffin_core_keras.blocks import mlp_block
from griffin_core_keras.layers.base import register
from griffin_core_keras.layers.block import Block
from griffin_core_keras.weights import LayerWeights


@register
class GatedMLP(Block):
    """down_proj(gelu(gate_proj(x)) * up_proj(x)) on [b t m].

    Args:
        mlp_width: width f of each branch.
        num_layers: of the model that it is part of; deeper models start with a smaller output.
        seed: of the initial weights; None is zeros.
    """

    def __init__(self, mlp_width: int, num_layers: int = 1, seed: int | None = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlp_width, self.num_layers, self.seed = mlp_width, num_layers, seed

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Three dense layers."""
        m, f = input_shape[-1], self.mlp_width
        self.gate_proj, self.up_proj = (self.dense(name, f, m**-0.5) for name in ("gate_proj", "up_proj"))
        self.down_proj = self.dense("down_proj", m, (2.0 / self.num_layers / f) ** 0.5)
        self.gate_proj.build(input_shape)
        self.up_proj.build(input_shape)
        self.down_proj.build((*input_shape[:-1], f))

    def call(self, x: Any) -> Any:
        """[b t m] to [b t m]."""
        return mlp_block(LayerWeights(self), x)

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        fields = ("mlp_width", "num_layers", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in fields}}
