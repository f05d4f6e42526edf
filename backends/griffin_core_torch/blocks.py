"""The blocks of the model, written once for the functional form and for modules (``weights.Weights``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from griffin_core.config import RECURRENT, GriffinConfig
from griffin_core_torch.activation import gelu_product
from griffin_core_torch.attention.compose import local_attention
from griffin_core_torch.capture import captured_middle
from griffin_core_torch.norms import rms_norm
from griffin_core_torch.scan.compose import recurrent_middle
from griffin_core_torch.weights import MIDDLE_NAMES, Weights, named

PIECE_TOKENS = 1024
"""Tokens of one piece when nothing is differentiated. It bounds the memory of a long prompt, and the products still
run at full rate: with 256 rows each, a prefill of 2048 tokens took 1.3 times as long."""

LayerState = Mapping[str, Tensor]
"""One layer's part of a state: h and conv, or k, v; and position."""


@dataclass(frozen=True)
class Call:
    """What every block of one forward pass needs to know.

    Attributes:
        config: the model's config.
        positions: int32 [b t], right-padded rows.
        kernel: name of a kernel, or None.
        record: receives (name, activation) to study; None records nothing.
        in_place: nothing is differentiated or recorded, so the residual stream may be overwritten in pieces.
    """

    config: GriffinConfig
    positions: Tensor
    kernel: str | None = None
    record: Callable[[str, Tensor], Any] | None = None
    in_place: bool = False

    def cut(self, start: int, stop: int) -> Call:
        """The same call for a piece of time."""
        return replace(self, positions=self.positions[:, start:stop])


def residual_block(
    weights: Weights, kind: str, x: Tensor, call: Call, state: LayerState | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """x + temporal(norm(x)), then x + mlp(norm(x)) (Griffin, section 2.1).

    Args:
        weights: those of one layer.
        kind: "recurrent" or "attention".
        x: [b t m]; overwritten when ``call.in_place``.
        state: this layer's state, or None for none.

    Returns:
        (x, state): [b t m], and the new state (empty without one).
    """
    if call.in_place:
        return _in_pieces(weights, kind, x, call, state)
    mixed, new = _temporal(weights, kind, x, call, state)
    x = x + mixed
    return x + _channel(weights, x), new


def recurrent_block(
    weights: Weights, x: Tensor, call: Call, state: LayerState | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """linear_out(gelu(linear_y(x)) * rg_lru(conv(linear_x(x)))) on x [b t m]."""
    gate, z = weights.dense("linear_y", x), weights.dense("linear_x", x)
    params = named(weights, MIDDLE_NAMES)
    h0, conv = (None, None) if state is None else (state["h"], state["conv"])
    if call.record is None:
        z, h, conv = recurrent_middle(z, params, h0, conv, call.positions, None, call.kernel)
    else:
        z, h, conv = captured_middle(z, params, h0, conv, call.positions, call.kernel, call.record)
    return weights.dense("linear_out", gelu_product(gate, z)), {} if state is None else {"h": h, "conv": conv}


def attention_block(
    weights: Weights, x: Tensor, call: Call, state: LayerState | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Local multi-query attention on x [b t m]; queries, keys and values have no bias."""
    q, k, v = (weights.dense(f"{name}_proj", x) for name in "qkv")
    q = q.view(*q.shape[:2], call.config.num_heads, call.config.head_dim)
    y, new = local_attention(q, k, v, call.positions, state, call.config.attention_window)
    y = y.flatten(2)
    if call.record is not None:
        call.record("attention", y)
    return weights.dense("o_proj", y), new or {}


def mlp_block(weights: Weights, x: Tensor) -> Tensor:
    """down(gelu(gate(x)) * up(x)) on x [b t m]."""
    return weights.dense("down_proj", gelu_product(weights.dense("gate_proj", x), weights.dense("up_proj", x)))


def _temporal(
    weights: Weights, kind: str, x: Tensor, call: Call, state: LayerState | None
) -> tuple[Tensor, dict[str, Tensor]]:
    block = recurrent_block if kind == RECURRENT else attention_block
    return block(weights.under("temporal_block"), rms_norm(x, weights.get("temporal_pre_norm.weight")), call, state)


def _channel(weights: Weights, x: Tensor) -> Tensor:
    return mlp_block(weights.under("mlp_block"), rms_norm(x, weights.get("channel_pre_norm.weight")))


def _in_pieces(
    weights: Weights, kind: str, x: Tensor, call: Call, state: LayerState | None
) -> tuple[Tensor, dict[str, Tensor]]:
    batch, time = x.shape[:2]
    step = max(1, PIECE_TOKENS // batch)
    carried = _carried(kind, call, state, x) if time > step else state
    wide = time if kind != RECURRENT and carried is None else step
    for start in range(0, time, wide):
        stop = min(start + wide, time)
        mixed, new = _temporal(weights, kind, x[:, start:stop], call.cut(start, stop), carried)
        x[:, start:stop] += mixed
        carried = None if carried is None else {**carried, **new}
    for start in range(0, time, step):
        piece = x[:, start : start + step]
        piece += _channel(weights, piece)
    if state is None:
        return x, {}
    return x, {name: value for name, value in carried.items() if name != "position"} if time else dict(state)


def _carried(kind: str, call: Call, state: LayerState | None, x: Tensor) -> LayerState | None:
    """A state to carry from piece to piece where the caller has none; None when global attention needs the whole."""
    if state is not None:
        return state
    batch, config = x.shape[0], call.config
    if kind == RECURRENT:
        conv = x.new_zeros(batch, config.conv_width - 1, config.lru_width)
        return {"h": torch.zeros(batch, config.lru_width, device=x.device), "conv": conv}
    if config.attention_window is None:
        return None
    begin = call.positions[:, 0].clamp_min(0)
    cache = x.new_zeros(batch, config.attention_window, config.head_dim)
    return {"k": cache, "v": cache, "position": begin}
