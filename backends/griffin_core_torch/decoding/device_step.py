"""One token through the model with all that changes on the device, positions included: fit for a CUDA graph."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from griffin_core.checks import PAD
from griffin_core.config import RECURRENT, GriffinConfig
from griffin_core.layouts.params import EMBEDDING, FINAL_NORM, LM_HEAD, layer_prefix
from griffin_core.layouts.states import POSITION
from griffin_core_torch.attention.rotation import angles, rotate
from griffin_core_torch.model import cap_logits
from griffin_core_torch.triton.step import from_ring, recurrent_step, to_ring
from griffin_core_torch.triton.token_ops import gelu_product, norm
from griffin_core_torch.weights import MIDDLE_NAMES


class DeviceStep:
    """The whole model for one token of each row, on buffers that never move.

    The first call runs the operations one by one and, on a GPU, records them; every later one replays the record.

    Args:
        state: only its shapes and dtypes are taken; ``load`` brings the values.
        dtype: of the products.

    Attributes:
        params: by canonical name, in ``dtype`` (the decay parameter aside), read where they are; set before a call,
            and always to those of the first.
    """

    def __init__(self, config: GriffinConfig, state: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self.config, self.params = config, dict[str, Tensor]()
        self.dtypes = {name: value.dtype for name, value in state.items()}
        batch, device = len(state[POSITION]), state[POSITION].device
        self.token = torch.zeros(batch, dtype=torch.int64, device=device)
        self.position = torch.zeros(batch, dtype=torch.int64, device=device)
        self.rows = torch.arange(batch, device=device)
        self.buffers = {
            name: torch.zeros(*_room(name, value), dtype=torch.float32 if name.endswith(".h") else dtype, device=device)
            for name, value in state.items()
            if name != POSITION
        }
        self.graph: torch.cuda.CUDAGraph | None = None
        self.scores = self.token.new_empty(0, dtype=torch.float32)

    def load(self, state: Mapping[str, Tensor], live: Tensor | None) -> None:
        """Go on from a state, which is read and not written; rows that are not ``live`` [b] stand still."""
        position = state[POSITION].long()
        self.position.copy_(position if live is None else torch.where(live, position, PAD))
        for name, buffer in self.buffers.items():
            buffer.copy_(to_ring(state[name], position) if name.endswith(".conv") else state[name])

    def state(self, position: Tensor) -> dict[str, Tensor]:
        """The state after the last token, int [b] of whose rows' positions are given; nothing in it is a buffer."""
        found = {
            name: from_ring(buffer, position) if name.endswith(".conv") else buffer.clone()
            for name, buffer in self.buffers.items()
        }
        found = {name: value.to(self.dtypes[name]) for name, value in found.items()}
        return {POSITION: position.to(self.dtypes[POSITION]), **found}

    def __call__(self, token: Tensor) -> Tensor:
        """Float32 logits [b v] after the tokens int64 [b]; the next call may write over them."""
        self.token.copy_(token)
        if self.graph is not None:
            self.graph.replay()
            return self.scores
        scores = self._run()
        if scores.is_cuda:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):  # records; what it would compute comes with the next token
                self.scores = self._run()
            self.graph = graph
        return scores

    def _run(self) -> Tensor:
        config, params = self.config, self.params
        x = functional.embedding(self.token, params[EMBEDDING])
        x = x * config.embedding_multiplier if config.embedding_multiplier != 1.0 else x
        for index, kind in enumerate(config.layer_kinds):
            prefix = layer_prefix(index)
            block = self._recurrent if kind == RECURRENT else self._attention
            y = norm(x, params[prefix + "temporal_pre_norm.weight"])
            x = x + block(prefix + "temporal_block.", f"layers.{index}.", y)
            y = norm(x, params[prefix + "channel_pre_norm.weight"])
            x = x + self._mlp(prefix + "mlp_block.", y)
        x = norm(x, params[FINAL_NORM])
        head = params[EMBEDDING if config.tie_embeddings else LM_HEAD]
        scores = cap_logits(config, functional.linear(x, head))
        self.position.add_((self.position >= 0).long())
        return scores

    def _dense(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.params[name + ".weight"], self.params.get(name + ".bias"))

    def _recurrent(self, prefix: str, name: str, x: Tensor) -> Tensor:
        weights = {short: self.params[prefix + full] for short, full in MIDDLE_NAMES.items()}
        gate, z = self._dense(prefix + "linear_y", x), self._dense(prefix + "linear_x", x)
        h, ring = self.buffers[name + "h"], self.buffers[name + "conv"]
        z = recurrent_step(z, weights, h, ring, self.position)
        return self._dense(prefix + "linear_out", gelu_product(gate, z))

    def _mlp(self, prefix: str, x: Tensor) -> Tensor:
        gate, up = self._dense(prefix + "gate_proj", x), self._dense(prefix + "up_proj", x)
        return self._dense(prefix + "down_proj", gelu_product(gate, up))

    def _attention(self, prefix: str, name: str, x: Tensor) -> Tensor:
        config, keys, values = self.config, self.buffers[name + "k"], self.buffers[name + "v"]
        q, k, v = (self._dense(f"{prefix}{part}_proj", x) for part in "qkv")
        turn = angles(self.position[:, None], config.head_dim)
        q = rotate(q.view(len(x), 1, config.num_heads, config.head_dim), turn)
        k = rotate(k[:, None], turn)[:, 0]
        live, slot = (self.position >= 0)[:, None], self.position.clamp_min(0) % keys.shape[1]
        for cache, new in ((keys, k), (values, v)):
            cache[self.rows, slot] = torch.where(live, new, cache[self.rows, slot])
        slots = torch.arange(keys.shape[1], device=x.device)
        seen = (slots <= self.position[:, None]) | ~live  # where a row stands still, what comes out is not used
        y = functional.scaled_dot_product_attention(  # all heads share the key: they are its queries
            q, keys[:, None], values[:, None], seen[:, None, None]
        )
        return self._dense(prefix + "o_proj", y.reshape(len(x), -1))


def _room(name: str, value: Tensor) -> tuple[int, ...]:
    """Shape of the buffer for a part of a state: the convolution's has one entry more."""
    batch, *rest = value.shape
    return (batch, rest[0] + 1, *rest[1:]) if name.endswith(".conv") else (batch, *rest)
