"""The whole model as a module. ``state_dict`` names are the canonical ones; no decode state lives on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from griffin_core.config import GriffinConfig
from griffin_core.layouts.initialise import init_params
from griffin_core.shapes import Array
from griffin_core_torch.model import Layer, cap_logits, run_hidden
from griffin_core_torch.modules_blocks import (
    RGLRU,
    LocalAttentionBlock,
    MLPBlock,
    RecurrentBlock,
    ResidualBlock,
    RMSNorm,
)
from griffin_core_torch.native import load_params

__all__ = [
    "RGLRU",
    "GriffinForCausalLM",
    "GriffinModel",
    "LocalAttentionBlock",
    "MLPBlock",
    "RMSNorm",
    "RecurrentBlock",
    "ResidualBlock",
]

State = Mapping[str, Tensor]


class GriffinModel(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(ResidualBlock(config, kind) for kind in config.layer_kinds)
        self.final_norm = RMSNorm(config.width)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        state: State | None = None,
        padding: str = "any",
        kernel: str | None = None,
        capture: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """(x [b t m] after the final norm, state or None); arguments as in ``hidden``."""
        return run_hidden(self.config, self, tokens, positions, state, padding, kernel, capture)

    def embed(self, tokens: Tensor) -> Tensor:
        """Rows of the embedding."""
        return self.embed_tokens(tokens)

    def layer(self, index: int, kind: str) -> Layer:
        """The residual block of one layer."""
        block = self.layers[index]
        return lambda x, call, state: block(x, state=state, call=call)

    def final_scale(self) -> Tensor:
        """The final norm's scale."""
        return self.final_norm.weight

    def wants_grad(self) -> bool:
        """Whether some parameter is trained."""
        return any(p.requires_grad for p in self.parameters())


class GriffinForCausalLM(nn.Module):
    """The whole model. ``from_config`` and ``from_params`` make one with weights."""

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__()
        self.config = config
        self.model = GriffinModel(config)
        self.lm_head = None if config.tie_embeddings else nn.Linear(config.width, config.vocab_size, bias=False)

    @classmethod
    def from_params(
        cls,
        config: GriffinConfig,
        canonical: Mapping[str, Array],
        dtype: str | None = None,
        device: str | None = None,
    ) -> Self:
        """A module with these canonical arrays (copied); arguments and errors as in ``load_params``."""
        with torch.device("meta"):
            module = cls(config)
        module.load_state_dict(load_params(config, canonical, dtype, device), strict=True, assign=True)
        return module.requires_grad_()

    @classmethod
    def from_config(
        cls,
        config: GriffinConfig,
        seed: int = 0,
        init: str = "paper",
        dtype: str | None = None,
        device: str | None = None,
    ) -> Self:
        """A module with the random weights of (config, seed, init): those every backend makes.

        Raises:
            ConfigError: unknown ``init`` or a negative seed.
        """
        return cls.from_params(config, init_params(config, seed, init), dtype, device)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        state: State | None = None,
        padding: str = "any",
        kernel: str | None = None,
        capture: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """(logits float32 [b t v], state or None); arguments as in the backend's ``forward``."""
        x, state = self.model(tokens, positions, state, padding, kernel, capture)
        head = self.lm_head
        scores = functional.linear(x, self.model.embed_tokens.weight) if head is None else head(x)
        return cap_logits(self.config, scores), state
