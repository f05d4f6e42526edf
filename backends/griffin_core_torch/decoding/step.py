"""One token through the model, on private buffers: no state is copied, and every layer is a few operations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from griffin_core.config import RECURRENT, GriffinConfig
from griffin_core.layouts.params import EMBEDDING, FINAL_NORM, LM_HEAD, layer_prefix
from griffin_core_torch.decoding.attention import AttentionScratch, AttentionStep, Places
from griffin_core_torch.decoding.derived import derive
from griffin_core_torch.decoding.recurrent import RecurrentScratch, RecurrentStep
from griffin_core_torch.decoding.stream import Call, Stream, mlp
from griffin_core_torch.model import cap_logits


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
        self.config, self.params, self.places = config, params, places
        embedding = params[EMBEDDING]
        batch, dtype, device = len(places.begin), embedding.dtype, embedding.device
        self.derived = derive(config, params, dtype)
        self.stream = Stream(config, batch, dtype, device)
        self.hidden = embedding.new_empty(batch, config.mlp_width), embedding.new_empty(batch, config.mlp_width)
        self.scores = embedding.new_empty(batch, config.vocab_size)
        self.temporal: list[RecurrentStep | AttentionStep] = []
        recurrent = RecurrentScratch(config, batch, dtype, device)
        attention = AttentionScratch(config, batch, dtype, device)
        for index, kind in enumerate(config.layer_kinds):
            if kind == RECURRENT:
                recurrence = self.derived[layer_prefix(index)]
                self.temporal.append(RecurrentStep(config, params, recurrence, index, state, places, recurrent))
            else:
                self.temporal.append(AttentionStep(config, params, index, state, places, attention))
        self._calls: dict[int, list[Call]] = {}

    def __call__(self, token: Tensor) -> Tensor:
        """Float32 logits [b v] after the tokens int64 [b]; the next call may write over them."""
        embedded = functional.embedding(token, self.params[EMBEDDING])
        torch.mul(embedded, self.config.embedding_multiplier, out=self.stream.x)
        self.places.rotate()
        phase = self.places.phase(self.config.conv_width)
        if phase not in self._calls:
            self._calls[phase] = self._bind(phase)
        for call in self._calls[phase]:
            call()
        return self.scores if self._folds_cap() else cap_logits(self.config, self.scores)

    def state(self) -> dict[str, Tensor]:
        """Every layer's arrays after the last token, under the names of a state (without the position)."""
        return {name: value for temporal in self.temporal for name, value in temporal.state().items()}

    def _folds_cap(self) -> bool:
        """Whether the soft cap's division is done on the last norm's factor: where no rounding stands between them."""
        return self.stream.same and self.config.logits_soft_cap is not None

    def _bind(self, phase: int) -> list[Call]:
        """The operations between embedding and logits in their order."""
        config, params, stream = self.config, self.params, self.stream
        calls: list[Call] = []
        for index, temporal in enumerate(self.temporal):
            prefix = layer_prefix(index)
            calls += stream.norm(self.derived[prefix + "temporal_pre_norm.weight"])
            calls += temporal.calls(stream, phase)
            calls += stream.norm(self.derived[prefix + "channel_pre_norm.weight"])
            calls += mlp(params, prefix + "mlp_block.", stream, self.hidden)
        factor, cap = self.derived[FINAL_NORM], config.logits_soft_cap
        head = params[EMBEDDING if config.tie_embeddings else LM_HEAD].t()
        calls += stream.norm(factor / cap if cap is not None and self._folds_cap() else factor)
        calls.append(partial(torch.mm, stream.y, head, out=self.scores))
        return [*calls, self.scores.tanh_, partial(self.scores.mul_, cap)] if self._folds_cap() else calls
