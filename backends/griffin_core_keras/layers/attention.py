"""Local multi-query attention with its projections (Griffin, section 2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keras import ops

from griffin_core.errors import ConfigError
from griffin_core.layouts.states import POSITION
from griffin_core_keras.blocks import Call, attention_block
from griffin_core_keras.layers.base import register
from griffin_core_keras.layers.block import Block
from griffin_core_keras.weights import LayerWeights


@register
class LocalAttention(Block):
    """Attention of many query heads to one key and value head, over the last ``window`` tokens of a document.

    Args:
        num_heads: query heads n.
        head_dim: size e of a head; the first half of it is rotated.
        window: keys that a query sees, itself included; None is all of its document.
        num_layers: of the model that it is part of; deeper models start with a smaller output.
        seed: of the initial weights; None is zeros.

    Call arguments:
        x: [b t m].
        positions: int32 [b t], 0 starts a document, -1 is padding. None: tokens continue the state, or start one.
        state: {"k", "v": [b s e], "position": int32 [b]}. With it the call returns (y, state).
        mask: bool [b t], False at padding, which may stand anywhere.
        padding: "right" promises that padding stands at the ends of rows.
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        window: int | None = None,
        num_layers: int = 1,
        seed: int | None = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads, self.head_dim, self.window = num_heads, head_dim, window
        self.num_layers, self.seed = num_layers, seed

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Four dense layers; queries, keys and values have no bias."""
        m, e, ne = input_shape[-1], self.head_dim, self.num_heads * self.head_dim
        sizes = {"q_proj": ne, "k_proj": e, "v_proj": e}
        self.q_proj, self.k_proj, self.v_proj = (self.dense(n, size, m**-0.5, bias=False) for n, size in sizes.items())
        self.o_proj = self.dense("o_proj", m, (2.0 / self.num_layers / ne) ** 0.5)
        for layer in (self.q_proj, self.k_proj, self.v_proj):
            layer.build(input_shape)
        self.o_proj.build((*input_shape[:-1], ne))

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
            return attention_block(LayerWeights(self), x, self.call_of(at), state)

        return self.along_time(run, x, positions, state, mask, padding)

    def call_of(self, positions: Any | None) -> Call:
        """What the functions in ``blocks`` need to know."""
        return replace(super().call_of(positions), head_dim=self.head_dim, window=self.window)

    def init_state(self, batch: int, capacity: int | None = None, dtype: str | None = None) -> dict[str, Any]:
        """Zeros: the state before any token; without a window it needs a capacity in tokens.

        Raises:
            ConfigError: there is neither.
        """
        size = self.window or capacity
        if not size:
            raise ConfigError("this layer attends globally; its state needs capacity=N, the most tokens it will hold")
        ring = ops.zeros((batch, size, self.head_dim), dtype or self.compute_dtype)
        return {"k": ring, "v": ring, POSITION: ops.zeros((batch,), "int32")}

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        fields = ("num_heads", "head_dim", "window", "num_layers", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in fields}}
