"""The model as modules. ``state_dict`` names are the canonical ones; no decode state lives on a module.

Blocks compute with the same functions as the functional form (``blocks.py``); linear layers are ``nn.Linear``
at the canonical path, so adapters, quantisers and parallel wrappers find what they expect.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from griffin_core.config import RECURRENT, GriffinConfig
from griffin_core.layouts.initialise import recurrent_param_from_uniform
from griffin_core_torch.blocks import Call, LayerState, attention_block, mlp_block, recurrent_block, residual_block
from griffin_core_torch.norms import rms_norm
from griffin_core_torch.scan.compose import rg_lru
from griffin_core_torch.weights import LRU_NAMES, ModuleWeights


class RMSNorm(nn.Module):
    """``rms_norm`` over the last axis; weight [m], 0 is the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """[... m] to [... m]."""
        return rms_norm(x, self.weight)


class RGLRU(nn.Module):
    """The real-gated linear recurrent unit (Griffin, section 2.4) on [b t d].

    Args:
        width: d.
        gate_blocks: h, blocks of the gates; divides ``width``.
    """

    def __init__(self, width: int, gate_blocks: int) -> None:
        super().__init__()
        block = width // gate_blocks
        decay = recurrent_param_from_uniform(np.asarray(torch.rand(width, device="cpu").numpy()), "paper")
        self.recurrent_param = nn.Parameter(torch.tensor(decay, dtype=torch.float32))
        for gate in ("input_gate", "recurrent_gate"):
            weight = torch.empty(gate_blocks, block, block).normal_(std=block**-0.5)
            self.register_parameter(gate + "_weight", nn.Parameter(weight))
            self.register_parameter(gate + "_bias", nn.Parameter(torch.zeros(gate_blocks, block)))

    def forward(
        self, x: Tensor, h0: Tensor | None = None, positions: Tensor | None = None, kernel: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """(y [b t d], h float32 [b d]); arguments as in ``rg_lru``."""
        params = {name: getattr(self, name) for name in LRU_NAMES}
        return rg_lru(x, params, h0, positions, None, kernel)


class _Temporal(nn.Module):
    """What temporal blocks share: the config, and filling in absent positions."""

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__()
        self.config = config

    def _call(self, x: Tensor, positions: Tensor | None, state: LayerState | None, kernel: str | None) -> Call:
        if positions is None:
            begin = x.new_zeros(len(x), dtype=torch.int32) if state is None else state["position"]
            positions = begin[:, None] + torch.arange(x.shape[1], dtype=torch.int32, device=x.device)
        return Call(self.config, positions, kernel)


class RecurrentBlock(_Temporal):
    """linear_out(gelu(linear_y(x)) * rg_lru(conv(linear_x(x)))) on [b t m]."""

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__(config)
        m, d, w = config.width, config.lru_width, config.conv_width
        self.linear_x, self.linear_y, self.linear_out = nn.Linear(m, d), nn.Linear(m, d), nn.Linear(d, m)
        self.conv_1d = nn.Conv1d(d, d, w, groups=d)
        self.rg_lru = RGLRU(d, config.gate_blocks)

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        state: LayerState | None = None,
        kernel: str | None = None,
        call: Call | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(y [b t m], state).

        Args:
            x: [b t m].
            positions: int32 [b t] of right-padded rows; None continues the state, or starts a document.
            state: "h" [b d], "conv" [b w-1 d] and "position" [b]; None for none.
            kernel: name of a kernel, or None.
            call: given by the model in place of positions and kernel.
        """
        return recurrent_block(ModuleWeights(self), x, call or self._call(x, positions, state, kernel), state)


class LocalAttentionBlock(_Temporal):
    """Local multi-query attention on [b t m]."""

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__(config)
        m, e, n = config.width, config.head_dim, config.num_heads
        self.q_proj = nn.Linear(m, n * e, bias=False)
        self.k_proj, self.v_proj = nn.Linear(m, e, bias=False), nn.Linear(m, e, bias=False)
        self.o_proj = nn.Linear(n * e, m)

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        state: LayerState | None = None,
        call: Call | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(y [b t m], state); the state has "k", "v" [b s e] and "position" [b]. Arguments as in ``RecurrentBlock``."""
        return attention_block(ModuleWeights(self), x, call or self._call(x, positions, state, None), state)


class MLPBlock(nn.Module):
    """down(gelu(gate(x)) * up(x)) on [b t m]."""

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__()
        m, f = config.width, config.mlp_width
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(m, f), nn.Linear(m, f), nn.Linear(f, m)

    def forward(self, x: Tensor) -> Tensor:
        """[b t m] to [b t m]."""
        return mlp_block(ModuleWeights(self), x)


class ResidualBlock(_Temporal):
    """One layer: x + temporal(norm(x)), then x + mlp(norm(x)).

    Args:
        kind: "recurrent" or "attention".
    """

    def __init__(self, config: GriffinConfig, kind: str) -> None:
        super().__init__(config)
        self.kind = kind
        self.temporal_pre_norm = RMSNorm(config.width)
        self.temporal_block = RecurrentBlock(config) if kind == RECURRENT else LocalAttentionBlock(config)
        self.channel_pre_norm = RMSNorm(config.width)
        self.mlp_block = MLPBlock(config)

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        state: LayerState | None = None,
        kernel: str | None = None,
        call: Call | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(x [b t m], state without "position"). Arguments as in ``RecurrentBlock``."""
        call = call or self._call(x, positions, state, kernel)
        return residual_block(ModuleWeights(self), self.kind, x, call, state)
