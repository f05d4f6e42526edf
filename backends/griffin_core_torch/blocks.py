"""The blocks of the model, written once for the functional form and for modules (``weights.Weights``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from griffin_core.config import NORM_EPS, RECURRENT, GriffinConfig
from griffin_core_torch.activation import gelu_product
from griffin_core_torch.attention.compose import local_attention
from griffin_core_torch.capture import captured_middle
from griffin_core_torch.norms import normalise, rms_norm
from griffin_core_torch.room import Room
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
        room: memory to work in when nothing is differentiated or recorded; the residual stream is then overwritten
            in pieces. None otherwise.
    """

    config: GriffinConfig
    positions: Tensor
    kernel: str | None = None
    record: Callable[[str, Tensor], Any] | None = None
    room: Room | None = None

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
        x: [b t m]; overwritten when ``call`` has room.
        state: this layer's state, or None for none.

    Returns:
        (x, state): [b t m], and the new state (empty without one).
    """
    if call.room is not None:
        return _in_pieces(weights, kind, x, call, state)
    block = recurrent_block if kind == RECURRENT else attention_block
    mixed, new = block(weights.under("temporal_block"), _norm(weights, "temporal_pre_norm", x), call, state)
    x = x + mixed
    return x + mlp_block(weights.under("mlp_block"), _norm(weights, "channel_pre_norm", x)), new


def recurrent_block(
    weights: Weights, x: Tensor, call: Call, state: LayerState | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """linear_out(gelu(linear_y(x)) * rg_lru(conv(linear_x(x)))) on x [b t m]."""
    y, new = _recurrent_mix(weights, x, call, state)
    return weights.dense("linear_out", y), new


def attention_block(
    weights: Weights, x: Tensor, call: Call, state: LayerState | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Local multi-query attention on x [b t m]; queries, keys and values have no bias."""
    y, new = _attention_mix(weights, x, call, state)
    return weights.dense("o_proj", y), new


def mlp_block(weights: Weights, x: Tensor) -> Tensor:
    """down(gelu(gate(x)) * up(x)) on x [b t m]."""
    return weights.dense("down_proj", _mlp_mix(weights, x, None))


def _recurrent_mix(
    weights: Weights, x: Tensor, call: Call, state: LayerState | None
) -> tuple[Tensor, dict[str, Tensor]]:
    (gate, bias), z = weights.product("linear_y", x, call.room), weights.dense("linear_x", x, call.room)
    params = named(weights, MIDDLE_NAMES)
    h0, conv = (None, None) if state is None else (state["h"], state["conv"])
    if call.record is None:
        z, h, conv = recurrent_middle(z, params, h0, conv, call.positions, None, call.kernel)
    else:
        z, h, conv = captured_middle(z, params, h0, conv, call.positions, call.kernel, call.record)
    return gelu_product(gate, z, bias), {} if state is None else {"h": h, "conv": conv}


def _attention_mix(
    weights: Weights, x: Tensor, call: Call, state: LayerState | None
) -> tuple[Tensor, dict[str, Tensor]]:
    q = weights.dense("q_proj", x, call.room)
    k, v = weights.dense("k_proj", x), weights.dense("v_proj", x)
    q = q.view(*q.shape[:2], call.config.num_heads, call.config.head_dim)
    y, new = local_attention(q, k, v, call.positions, state, call.config.attention_window)
    y = y.flatten(2)
    if call.record is not None:
        call.record("attention", y)
    return y, new or {}


def _mlp_mix(weights: Weights, x: Tensor, room: Room | None) -> Tensor:
    (gate, gate_bias), (up, up_bias) = (weights.product(f"{name}_proj", x, room) for name in ("gate", "up"))
    return gelu_product(gate, up, gate_bias, up_bias)


def _norm(weights: Weights, name: str, x: Tensor, room: Room | None = None) -> Tensor:
    scale = weights.get(f"{name}.weight")
    return rms_norm(x, scale) if room is None else normalise(x, scale, NORM_EPS, room.take("norm", x, len(scale)))[0]


def _in_pieces(
    weights: Weights, kind: str, x: Tensor, call: Call, state: LayerState | None
) -> tuple[Tensor, dict[str, Tensor]]:
    batch, time = x.shape[:2]
    step = max(1, PIECE_TOKENS // batch)
    carried = _carried(kind, call, state, x) if time > step else state
    mix, last = (_recurrent_mix, "linear_out") if kind == RECURRENT else (_attention_mix, "o_proj")
    temporal, mlp = weights.under("temporal_block"), weights.under("mlp_block")
    wide = time if kind != RECURRENT and carried is None else step
    for start in range(0, time, wide):
        piece = x[:, start : start + wide]
        y = _norm(weights, "temporal_pre_norm", piece, call.room)
        y, new = mix(temporal, y, call.cut(start, start + wide), carried)
        temporal.add_dense(last, y, piece)
        carried = None if carried is None else {**carried, **new}
    for start in range(0, time, step):
        piece = x[:, start : start + step]
        y = _mlp_mix(mlp, _norm(weights, "channel_pre_norm", piece, call.room), call.room)
        mlp.add_dense("down_proj", y, piece)
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
