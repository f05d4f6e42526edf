"""One token through the model, on private buffers: no state is copied, and every layer is a few operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional

from griffin_core.config import NORM_EPS, RECURRENT, GriffinConfig
from griffin_core.layouts.params import EMBEDDING, FINAL_NORM, LM_HEAD, layer_prefix
from griffin_core_torch.decoding.attention import AttentionScratch, AttentionStep, Places
from griffin_core_torch.decoding.derived import derive
from griffin_core_torch.decoding.recurrent import RecurrentScratch, RecurrentStep
from griffin_core_torch.model import cap_logits

_gelu = torch.ops.aten.gelu_


class TokenStep:
    """The whole model for one token of each row.

    Args:
        params: by canonical name, in the compute dtype (the decay parameter aside).
        state: a state of the config; it is read, not written.
        places: positions of the tokens to come.
    """

    def __init__(
        self, config: GriffinConfig, params: Mapping[str, Tensor], state: Mapping[str, Tensor], places: Places
    ) -> None:
        self.config, self.embedding = config, params[EMBEDDING]
        self.head = params[EMBEDDING if config.tie_embeddings else LM_HEAD]
        batch, dtype, device = len(places.begin), self.embedding.dtype, self.embedding.device
        derived = derive(config, params, dtype)
        recurrent = RecurrentScratch(config, batch, dtype, device)
        attention = AttentionScratch(config, batch, dtype, device)
        hidden = [self.embedding.new_empty(batch, config.mlp_width) for _ in range(2)]
        self.final_norm = NormStep(derived[FINAL_NORM], batch, dtype)
        self.layers = []
        for index, kind in enumerate(config.layer_kinds):
            prefix = layer_prefix(index)
            temporal: RecurrentStep | AttentionStep
            if kind == RECURRENT:
                temporal = RecurrentStep(config, params, derived[prefix], index, state, places.begin[0], recurrent)
            else:
                temporal = AttentionStep(config, params, index, state, places, attention)
            norms = [NormStep(derived[f"{prefix}{n}_pre_norm.weight"], batch, dtype) for n in ("temporal", "channel")]
            self.layers.append((norms[0], temporal, norms[1], MLPStep(params, prefix + "mlp_block.", hidden)))

    def __call__(self, token: Tensor) -> Tensor:
        """Float32 logits [b v] after the tokens int64 [b]."""
        x = functional.embedding(token, self.embedding)
        if self.config.embedding_multiplier != 1.0:
            x = x * self.config.embedding_multiplier
        for temporal_norm, temporal, channel_norm, mlp in self.layers:
            x.add_(temporal(temporal_norm(x)))
            x.add_(mlp(channel_norm(x)))
        return cap_logits(self.config, functional.linear(self.final_norm(x), self.head))

    def state(self) -> dict[str, Tensor]:
        """Every layer's arrays after the last token, under the names of a state (without the position)."""
        return {name: value for _, temporal, _, _ in self.layers for name, value in temporal.state().items()}


class NormStep:
    """``rms_norm`` of rows [b m]: x (1 + scale) sqrt(m) / hypot(|x|, sqrt(m eps)).

    Args:
        factor: 1 + scale, in the dtype that is computed in.
    """

    def __init__(self, factor: Tensor, batch: int, dtype: torch.dtype) -> None:
        width = len(factor)
        self.factor, self.narrow = factor * width**0.5, dtype != factor.dtype
        self.floor = factor.new_tensor((width * NORM_EPS) ** 0.5)
        self.norm, self.y = factor.new_empty(batch, 1), factor.new_empty(batch, width)
        self.dtype = dtype

    def __call__(self, x: Tensor) -> Tensor:
        """[b m] in the compute dtype; the buffer is written again by the next call."""
        wide = x.to(self.y.dtype) if self.narrow else x
        norm = torch.hypot(vector_norm(wide, dim=-1, keepdim=True, out=self.norm), self.floor, out=self.norm)
        y = torch.mul(wide, self.factor, out=self.y).div_(norm)
        return y.to(self.dtype) if self.narrow else y


class MLPStep:
    """down(gelu(gate(x)) * up(x)) on rows, in buffers that all layers share.

    Args:
        buffers: two [b f] in the compute dtype.
    """

    def __init__(self, params: Mapping[str, Tensor], prefix: str, buffers: Sequence[Tensor]) -> None:
        names = [f"{prefix}{name}_proj" for name in ("gate", "up", "down")]
        self.gate, self.up, self.down = ((params[n + ".bias"], params[n + ".weight"].t()) for n in names)
        self.buffers = buffers

    def __call__(self, x: Tensor) -> Tensor:
        """[b m] to [b m]."""
        (gate_bias, gate), (up_bias, up), (bias, down) = self.gate, self.up, self.down
        hidden = torch.addmm(gate_bias, x, gate, out=self.buffers[0])
        other = torch.addmm(up_bias, x, up, out=self.buffers[1])
        return torch.addmm(bias, _gelu(hidden, approximate="tanh").mul_(other), down)
