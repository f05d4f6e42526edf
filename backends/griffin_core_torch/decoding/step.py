"""One token through the model, on private buffers: no state is copied, and every layer is a few operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from griffin_core.config import NORM_EPS, RECURRENT, GriffinConfig
from griffin_core.layouts.params import EMBEDDING, FINAL_NORM, LM_HEAD, layer_prefix
from griffin_core_torch.decoding.attention import AttentionStep, Places
from griffin_core_torch.decoding.derived import Recurrence, derive
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
        self.config, self.params = config, params
        self.embedding = params[EMBEDDING]
        self.head = params[EMBEDDING if config.tie_embeddings else LM_HEAD]
        derived = derive(config, params, self.embedding.dtype)
        self.final_factor = derived[FINAL_NORM]
        self.layers = []
        for index, kind in enumerate(config.layer_kinds):
            prefix = layer_prefix(index)
            temporal: Any
            if kind == RECURRENT:
                temporal = RecurrentStep(config, params, derived[prefix], index, state, places.begin[0])
            else:
                temporal = AttentionStep(config, params, index, state, places)
            factors = [derived[f"{prefix}{norm}_pre_norm.weight"] for norm in ("temporal", "channel")]
            self.layers.append((factors[0], temporal, factors[1], _mlp(params, prefix + "mlp_block.")))

    def __call__(self, token: Tensor) -> Tensor:
        """Float32 logits [b v] after the tokens int64 [b]."""
        x = functional.embedding(token, self.embedding)
        if self.config.embedding_multiplier != 1.0:
            x = x * self.config.embedding_multiplier
        for temporal_factor, temporal, channel_factor, mlp in self.layers:
            x.add_(temporal(normalise(x, temporal_factor)))
            x.add_(mlp(normalise(x, channel_factor)))
        return cap_logits(self.config, functional.linear(normalise(x, self.final_factor), self.head))

    def state(self) -> dict[str, Tensor]:
        """Every layer's arrays after the last token, under the names of a state (without the position)."""
        return {name: value for _, temporal, _, _ in self.layers for name, value in temporal.state().items()}


def normalise(x: Tensor, factor: Tensor) -> Tensor:
    """``rms_norm`` of rows [b m], given 1 + scale."""
    wide = x if x.dtype == factor.dtype else x.to(factor.dtype)
    square = torch.linalg.vecdot(wide, wide)[:, None]
    y = torch.mul(wide, factor).mul_(square.mul_(1.0 / x.shape[1]).add_(NORM_EPS).rsqrt_())
    return y if x.dtype == factor.dtype else y.to(x.dtype)


class RecurrentStep:
    """A recurrent block: its weights, its state h [h b k] and the last w inputs of the conv as a ring [b w d].

    Args:
        position: tokens that the first row has consumed.
    """

    def __init__(
        self,
        config: GriffinConfig,
        params: Mapping[str, Tensor],
        recurrence: Recurrence,
        index: int,
        state: Mapping[str, Tensor],
        position: int,
    ) -> None:
        prefix = layer_prefix(index) + "temporal_block."
        names = [f"{prefix}linear_{name}" for name in ("y", "x", "out")]
        self.linear_y, self.linear_x, self.linear_out = ((params[n + ".weight"], params[n + ".bias"]) for n in names)
        self.name, self.recurrence = f"layers.{index}.", recurrence
        self.dtype = state[self.name + "conv"].dtype
        h = state[self.name + "h"]
        self.blocks = (h.shape[0], config.gate_blocks, config.block_width)
        self.h = h.view(self.blocks).transpose(0, 1).clone(memory_format=torch.contiguous_format)
        conv = state[self.name + "conv"].to(h.dtype)
        ring = torch.cat([conv, torch.empty_like(conv[:, :1])], dim=1)
        # Position p stands in slot p mod w, so that the order of the sum over the taps, and with it every bit,
        # does not depend on where one call ended and the next began.
        self.ring, self.phase = ring.roll(position + 1, dims=1), position % ring.shape[1]
        self.slots = self.ring.unbind(1)

    def __call__(self, x: Tensor) -> Tensor:
        """[b m] to [b m]."""
        gate = functional.linear(x, *self.linear_y)
        self.slots[self.phase].copy_(functional.linear(x, *self.linear_x))
        taps = self.recurrence.taps[self.phase]
        self.phase = (self.phase + 1) % len(self.slots)
        z = torch.mul(self.ring, taps).sum(1).add_(self.recurrence.conv_bias)
        mixed = self._recur(z if z.dtype == x.dtype else z.to(x.dtype)).transpose(0, 1).reshape(z.shape)
        _gelu(gate, approximate="tanh").mul_(mixed if mixed.dtype == x.dtype else mixed.to(x.dtype))
        return functional.linear(gate, *self.linear_out)

    def _recur(self, z: Tensor) -> Tensor:
        """The state [h b k] after one input [b d] of the RG-LRU; the position is not 0."""
        z = z.view(self.blocks).transpose(0, 1)
        gates = torch.baddbmm(self.recurrence.gate_bias, z, self.recurrence.gate_weight)
        gates = gates.float().sigmoid_() if gates.dtype in (torch.bfloat16, torch.float16) else gates.sigmoid_()
        recurrent, inputs = gates.chunk(2, dim=-1)
        log_a, twice = torch.mul(recurrent, self.recurrence.rates).unbind(0)
        u = torch.mul(inputs, z).mul_(twice.expm1_().neg_().sqrt_())
        return torch.addcmul(u, log_a.exp_(), self.h, out=self.h)

    def state(self) -> dict[str, Tensor]:
        """h and conv, canonical."""
        h = self.h.transpose(0, 1).reshape(self.blocks[0], -1)
        conv = torch.stack([self.slots[(self.phase + i) % len(self.slots)] for i in range(1, len(self.slots))], dim=1)
        return {self.name + "h": h, self.name + "conv": conv.to(self.dtype)}


def _mlp(params: Mapping[str, Tensor], prefix: str) -> Callable[[Tensor], Tensor]:
    gate, up, down = (
        (params[f"{prefix}{name}_proj.weight"], params[f"{prefix}{name}_proj.bias"]) for name in ("gate", "up", "down")
    )

    def mlp(x: Tensor) -> Tensor:
        linear = functional.linear
        return linear(_gelu(linear(x, *gate), approximate="tanh").mul_(linear(x, *up)), *down)

    return mlp
