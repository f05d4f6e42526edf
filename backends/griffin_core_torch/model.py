"""The whole model: embedding, residual blocks, final norm, logits (Griffin, section 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from griffin_core.checks import PAD, check_positions, check_tokens
from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import EMBEDDING, FINAL_NORM, LM_HEAD, layer_prefix
from griffin_core.layouts.states import POSITION
from griffin_core_torch.arrays import as_dtype, cache_blocks
from griffin_core_torch.attention.ring import ends
from griffin_core_torch.blocks import Call, LayerState, residual_block
from griffin_core_torch.norms import rms_norm
from griffin_core_torch.padding import compaction, gather_time, scatter_time
from griffin_core_torch.room import Room
from griffin_core_torch.weights import FlatWeights

CAP_ELEMENTS = 1 << 18
"""Logits that are capped at a time, 1 MiB of float32: they stay in cache."""

State = Mapping[str, Tensor]
Layer = Callable[[Tensor, Call, LayerState | None], tuple[Tensor, dict[str, Tensor]]]


class Source(Protocol):
    """Where ``run_hidden`` finds the model: a flat dict or a module."""

    def embed(self, tokens: Tensor) -> Tensor:
        """Rows of the embedding, in the compute dtype, not scaled."""

    def layer(self, index: int, kind: str) -> Layer:
        """The residual block of one layer."""

    def final_scale(self) -> Tensor:
        """The final norm's scale."""

    def wants_grad(self) -> bool:
        """Whether some parameter is trained."""


class FlatSource:
    """A model in a flat dict of tensors."""

    def __init__(self, params: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
        self.params, self.dtype = params, dtype

    def embed(self, tokens: Tensor) -> Tensor:
        """Rows of the embedding."""
        return functional.embedding(tokens, self.params[EMBEDDING]).to(self.dtype)

    def layer(self, index: int, kind: str) -> Layer:
        """The residual block on this layer's part of the dict."""
        weights = FlatWeights(self.params, layer_prefix(index), self.dtype)
        return lambda x, call, state: residual_block(weights, kind, x, call, state)

    def final_scale(self) -> Tensor:
        """The final norm's scale."""
        return self.params[FINAL_NORM]

    def wants_grad(self) -> bool:
        """Whether some parameter asks for a gradient."""
        return any(p.requires_grad for p in self.params.values())


def run_hidden(
    config: GriffinConfig,
    source: Source,
    tokens: Tensor,
    positions: Tensor | None = None,
    state: State | None = None,
    padding: str = "any",
    kernel: str | None = None,
    capture: dict[str, Tensor] | None = None,
    wrap: Callable[[Layer], Layer] | None = None,
) -> tuple[Tensor, dict[str, Tensor] | None]:
    """``hidden`` on any source; ``wrap`` stands around each layer (activation checkpointing)."""
    check_host(config, tokens, positions, state)
    if positions is None:
        begin = tokens.new_zeros(len(tokens), dtype=torch.int32) if state is None else state[POSITION]
        positions = begin[:, None] + torch.arange(tokens.shape[1], dtype=torch.int32, device=tokens.device)
    order = compaction(positions) if padding == "any" else None
    if order is not None:
        tokens, positions = gather_time(tokens, order), gather_time(positions, order)
    pad = positions == PAD
    # Elsewhere than on a processor, to look would be to wait.
    some_pad = pad.device.type != "cpu" or torch.compiler.is_compiling() or bool(pad.any())
    x = source.embed(tokens.masked_fill(pad, 0) if some_pad else tokens)
    x = x * config.embedding_multiplier if config.embedding_multiplier != 1.0 else x
    room = None if capture is not None or (torch.is_grad_enabled() and source.wants_grad()) else Room()
    out: dict[str, Tensor] = {}
    for index, kind in enumerate(config.layer_kinds):
        prefix = f"layers.{index}."
        call = Call(config, positions, kernel, _recorder(capture, prefix, order), room)
        layer = source.layer(index, kind)
        x, new = (layer if wrap is None else wrap(layer))(x, call, layer_state(state, prefix))
        out |= {prefix + name: new[name] for name in ("h", "conv", "k", "v") if name in new}
    x = rms_norm(x, source.final_scale())
    if some_pad:
        x = x.masked_fill(pad[..., None], 0.0)
    x = x if order is None else scatter_time(x, order)
    return x, None if state is None else {POSITION: ends(positions, state[POSITION])[1], **out}


def hidden(
    config: GriffinConfig,
    params: Mapping[str, Tensor],
    tokens: Tensor,
    positions: Tensor | None = None,
    state: State | None = None,
    padding: str = "any",
    kernel: str | None = None,
    compute_dtype: str | None = None,
    capture: dict[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor] | None]:
    """The final norm's output for every token, and the state after the last.

    Args:
        params: from ``load_params``.
        tokens: integers [b t] (any value at padding).
        positions: int32 [b t]: 0 starts a document, -1 is padding. None continues the state, or starts a
            document without one.
        state: from ``init_state`` or an earlier call; None for none, and then none is returned.
        padding: "any" allows padding anywhere; "right" promises that it stands at the ends of rows.
        kernel: name of a kernel for the recurrent operations, or None.
        compute_dtype: dtype of the products; None is that of the embedding.
        capture: a dict to fill with activations: "layers.N." + conv, gate_x, gate_a, input_gate,
            recurrent_gate, log_a, h or attention, as [b t ...].

    Returns:
        (x, state): [b t m] in the compute dtype, 0 at padding, and a new state or None.

    Raises:
        InputError: tokens or positions are not legal (checked on the host only).
    """
    source = FlatSource(params, as_dtype(compute_dtype, params[EMBEDDING].dtype))
    return run_hidden(config, source, tokens, positions, state, padding, kernel, capture)


def logits(config: GriffinConfig, params: Mapping[str, Tensor], x: Tensor, compute_dtype: str | None = None) -> Tensor:
    """x times the embedding (or ``lm_head``), then c tanh(. / c) where the config caps.

    Args:
        x: [b t m] from ``hidden``.

    Returns:
        float32 [b t v].
    """
    head = params[EMBEDDING if config.tie_embeddings else LM_HEAD]
    dtype = as_dtype(compute_dtype, head.dtype)
    return cap_logits(config, functional.linear(x.to(dtype), head.to(dtype)))


def cap_logits(config: GriffinConfig, scores: Tensor) -> Tensor:
    """float32 scores (float64 stays), softly capped where the config says so; without a gradient, in place."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    cap = config.logits_soft_cap
    if cap is None:
        return scores
    if scores.requires_grad:
        return torch.tanh(scores / cap) * cap
    scores = scores.contiguous()
    for block in cache_blocks(scores.view(-1), CAP_ELEMENTS):  # one pass over memory, not three
        block.div_(cap).tanh_().mul_(cap)
    return scores


def forward(
    config: GriffinConfig,
    params: Mapping[str, Tensor],
    tokens: Tensor,
    positions: Tensor | None = None,
    state: State | None = None,
    padding: str = "any",
    kernel: str | None = None,
    compute_dtype: str | None = None,
    capture: dict[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor] | None]:
    """``logits`` of ``hidden``: (float32 [b t v], state or None). Arguments as there; logits at padding are 0."""
    x, state = hidden(config, params, tokens, positions, state, padding, kernel, compute_dtype, capture)
    return logits(config, params, x, compute_dtype), state


def check_host(config: GriffinConfig, tokens: Tensor, positions: Tensor | None, state: State | None) -> None:
    """Refuse illegal ids and positions where looking at them is cheap: on the host, outside compiled code."""
    if tokens.device.type != "cpu" or torch.compiler.is_compiling():
        return
    at = None if positions is None else positions.numpy()
    check_tokens(config, tokens.numpy(), at)
    if at is not None:
        check_positions(at, tuple(tokens.shape), None if state is None else state[POSITION].cpu().numpy())


def layer_state(state: State | None, prefix: str) -> dict[str, Tensor] | None:
    """One layer's arrays under short names, with the position; None without a state."""
    if state is None:
        return None
    found = {name: state[prefix + name] for name in ("h", "conv", "k", "v") if prefix + name in state}
    return {**found, POSITION: state[POSITION]}


def _recorder(capture: dict[str, Tensor] | None, prefix: str, order: Tensor | None) -> Callable[..., Any] | None:
    if capture is None:
        return None

    def record(name: str, value: Tensor) -> None:
        capture[prefix + name] = value if order is None else scatter_time(value, order)

    return record
