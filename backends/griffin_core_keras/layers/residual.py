"""One layer of the model: a temporal block and an MLP, each behind a norm and beside a residual stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from griffin_core.config import RECURRENT, GriffinConfig, from_dict
from griffin_core.errors import ConfigError
from griffin_core_keras.blocks import Call, residual_block
from griffin_core_keras.layers.attention import LocalAttention
from griffin_core_keras.layers.base import register
from griffin_core_keras.layers.block import Block
from griffin_core_keras.layers.mlp import GatedMLP
from griffin_core_keras.layers.recurrent import RecurrentBlock
from griffin_core_keras.layers.rms_norm import RMSNorm
from griffin_core_keras.weights import LayerWeights


@register
class ResidualBlock(Block):
    """x + temporal(norm(x)), then x + mlp(norm(x)) on [b t m] (Griffin, section 2.1).

    Args:
        config: sizes, as a config or its dict.
        kind: "recurrent" or "attention".
        seed, init: of the initial weights: "paper" or "released"; without a seed they are zeros.
        kernel: name of a kernel, or None for GRIFFIN_KERNEL or the first that can run the call.

    Call arguments: as of ``RecurrentBlock`` and ``LocalAttention``; the state is that of the temporal block.

    Raises:
        ConfigError: there is no such kind.
    """

    def __init__(
        self,
        config: GriffinConfig | Mapping[str, Any],
        kind: str = RECURRENT,
        seed: int | None = 0,
        init: str = "paper",
        kernel: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config if isinstance(config, GriffinConfig) else from_dict(config)
        if kind not in ("recurrent", "attention"):
            raise ConfigError(f"kind={kind!r}; expected 'recurrent' or 'attention'")
        self.kind, self.seed, self.init, self.kernel = kind, seed, init, kernel

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Two norms, the temporal block, the MLP."""
        c, policy = self.config, self.dtype_policy
        how: dict[str, Any] = {"num_layers": c.num_layers, "seed": self.seed, "dtype": policy}
        self.temporal_pre_norm = RMSNorm(name="temporal_pre_norm", dtype=policy)
        if self.kind == RECURRENT:
            how |= {"init": self.init, "kernel": self.kernel, "name": "temporal_block"}
            self.temporal_block = RecurrentBlock(c.lru_width, c.gate_blocks, c.conv_width, **how)
        else:
            window = c.attention_window
            self.temporal_block = LocalAttention(c.num_heads, c.head_dim, window, **how, name="temporal_block")
        self.channel_pre_norm = RMSNorm(name="channel_pre_norm", dtype=policy)
        self.mlp_block = GatedMLP(c.mlp_width, c.num_layers, self.seed, name="mlp_block", dtype=policy)
        for layer in (self.temporal_pre_norm, self.temporal_block, self.channel_pre_norm, self.mlp_block):
            layer.build(input_shape)

    def call(
        self,
        x: Any,
        positions: Any | None = None,
        state: Mapping[str, Any] | None = None,
        mask: Any | None = None,
        padding: str = "any",
        call: Call | None = None,
    ) -> Any:
        """x [b t m], or (x, state) where a state is given; ``call`` is the model's own way in, and gives both."""
        if call is not None:
            return residual_block(LayerWeights(self), self.kind, x, call, state)

        def run(x: Any, at: Any) -> tuple[Any, dict[str, Any]]:
            return residual_block(LayerWeights(self), self.kind, x, self.call_of(at), state)

        return self.along_time(run, x, positions, state, mask, padding)

    def call_of(self, positions: Any | None) -> Call:
        """What the functions in ``blocks`` need to know."""
        c = self.config
        return replace(super().call_of(positions), head_dim=c.head_dim, window=c.attention_window)

    def init_state(self, batch: int, capacity: int | None = None, dtype: str | None = None) -> dict[str, Any]:
        """Zeros: the state before any token; a global attention layer needs a capacity in tokens."""
        if self.kind == RECURRENT:
            return self.temporal_block.init_state(batch, dtype)
        return self.temporal_block.init_state(batch, capacity, dtype)

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        fields = {name: getattr(self, name) for name in ("kind", "seed", "init", "kernel")}
        return {**super().get_config(), "config": self.config.to_dict(), **fields}
