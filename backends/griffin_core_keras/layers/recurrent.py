"""The recurrent block: two branches, the convolution, the RG-LRU (Griffin, section 2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from griffin_core_keras.blocks import recurrent_block
from griffin_core_keras.layers.base import register
from griffin_core_keras.layers.block import Block
from griffin_core_keras.layers.conv1d import CausalConv1D
from griffin_core_keras.layers.rg_lru import RGLRU
from griffin_core_keras.weights import LayerWeights


@register
class RecurrentBlock(Block):
    """linear_out(gelu(linear_y(x)) * rg_lru(conv(linear_x(x)))) on [b t m].

    Args:
        lru_width: recurrent width d.
        gate_blocks: blocks h of the gates; divides d.
        conv_width: taps w of the convolution.
        num_layers: of the model that it is part of; deeper models start with a smaller output.
        seed, init: of the initial weights: "paper" or "released"; without a seed they are zeros.
        kernel: name of a kernel, or None for GRIFFIN_KERNEL or the first that can run the call.

    Call arguments:
        x: [b t m].
        positions: int32 [b t], 0 starts a document, -1 is padding. None: tokens continue the state, or start one.
        state: {"h": float32 [b d], "conv": [b w-1 d], "position": int32 [b]}. With it the call returns (y, state).
        mask: bool [b t], False at padding, which may stand anywhere.
        padding: "right" promises that padding stands at the ends of rows.
    """

    def __init__(
        self,
        lru_width: int,
        gate_blocks: int = 16,
        conv_width: int = 4,
        num_layers: int = 1,
        seed: int | None = 0,
        init: str = "paper",
        kernel: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lru_width, self.gate_blocks, self.conv_width = lru_width, gate_blocks, conv_width
        self.num_layers, self.seed, self.init, self.kernel = num_layers, seed, init, kernel

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Three dense layers, the convolution and the recurrence."""
        m, d, policy = input_shape[-1], self.lru_width, self.dtype_policy
        inner = (*input_shape[:-1], d)
        self.linear_x, self.linear_y = (self.dense(name, d, m**-0.5) for name in ("linear_x", "linear_y"))
        self.linear_out = self.dense("linear_out", m, (2.0 / self.num_layers / d) ** 0.5)
        self.conv_1d = CausalConv1D(self.conv_width, self.seed, self.kernel, name="conv_1d", dtype=policy)
        self.rg_lru = RGLRU(self.gate_blocks, self.seed, self.init, self.kernel, name="rg_lru", dtype=policy)
        for layer, shape in ((self.linear_x, input_shape), (self.linear_y, input_shape), (self.linear_out, inner)):
            layer.build(shape)
        self.conv_1d.build(inner)
        self.rg_lru.build(inner)

    def call(
        self,
        x: Any,
        positions: Any | None = None,
        state: Mapping[str, Any] | None = None,
        mask: Any | None = None,
        padding: str = "any",
    ) -> Any:
        """y [b t m], or (y, state) where a state is given."""

        def run(x: Any, at: Any) -> tuple[Any, dict[str, Any]]:
            return recurrent_block(LayerWeights(self), x, self.call_of(at), state)

        return self.along_time(run, x, positions, state, mask, padding)

    def init_state(self, batch: int, dtype: str | None = None) -> dict[str, Any]:
        """Zeros: the state before any token."""
        return {**self.rg_lru.init_state(batch), **self.conv_1d.init_state(batch, dtype)}

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        fields = ("lru_width", "gate_blocks", "conv_width", "num_layers", "seed", "init", "kernel")
        return {**super().get_config(), **{name: getattr(self, name) for name in fields}}
