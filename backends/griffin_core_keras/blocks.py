"""The blocks of the model, written once for the functional form and for layers (``weights.Weights``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keras import ops

from griffin_core.config import RECURRENT
from griffin_core.layouts.states import POSITION
from griffin_core_keras.capture import captured_middle
from griffin_core_keras.engine import engine
from griffin_core_keras.weights import MIDDLE_NAMES, Weights, named

LayerState = Mapping[str, Any]
"""One layer's part of a state: h [b d] and conv [b w-1 d], or k and v [b s e] and position [b]."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What every block of one forward pass needs to know.

    Attributes:
        positions: int32 [b t] of right-padded rows; None continues the state, or starts a document.
        head_dim: size of an attention head.
        window: keys that a query sees; None is global.
        kernel: name of a kernel for the recurrent operations, or None.
        record: receives (name, activation) to study; None records nothing.
    """

    positions: Any | None = None
    head_dim: int = 0
    window: int | None = None
    kernel: str | None = None
    record: Callable[[str, Any], Any] | None = None


def residual_block(
    weights: Weights, kind: str, x: Any, call: Call, state: LayerState | None
) -> tuple[Any, dict[str, Any]]:
    """x + temporal(norm(x)), then x + mlp(norm(x)) (Griffin, section 2.1).

    Args:
        weights: those of one layer.
        kind: "recurrent" or "attention".
        x: [b t m].
        state: this layer's state, or None for none.

    Returns:
        (x, state): [b t m], and the new state (empty without one).
    """
    block = recurrent_block if kind == RECURRENT else attention_block
    mixed, new = block(weights.under("temporal_block"), weights.norm("temporal_pre_norm", x), call, state)
    x = x + mixed
    return x + mlp_block(weights.under("mlp_block"), weights.norm("channel_pre_norm", x)), new


def recurrent_block(weights: Weights, x: Any, call: Call, state: LayerState | None) -> tuple[Any, dict[str, Any]]:
    """linear_out(gelu(linear_y(x)) * rg_lru(conv(linear_x(x)))) on x [b t m]; the new state has h and conv."""
    gate, z = weights.dense("linear_y", x), weights.dense("linear_x", x)
    params = named(weights, MIDDLE_NAMES)
    h0, conv = (None, None) if state is None else (state["h"], state["conv"])
    if call.record is None:
        y, h, conv = engine.recurrent_middle(z, params, h0, conv, call.positions, None, call.kernel)
    else:
        y, h, conv = captured_middle(z, params, h0, conv, call.positions, call.kernel, call.record)
    new = {} if state is None else {"h": h, "conv": ops.cast(conv, engine.dtype_name(state["conv"]))}
    return weights.dense("linear_out", engine.gelu_product(gate, y)), new


def attention_block(weights: Weights, x: Any, call: Call, state: LayerState | None) -> tuple[Any, dict[str, Any]]:
    """Local multi-query attention on x [b t m]; the new state has k, v and position."""
    batch, time = ops.shape(x)[:2]
    q = weights.dense("q_proj", x)
    width = q.shape[-1]
    q = ops.reshape(q, (batch, time, width // call.head_dim, call.head_dim))
    k, v = weights.dense("k_proj", x), weights.dense("v_proj", x)
    cache = None if state is None else {name: state[name] for name in ("k", "v", POSITION)}
    y, new = engine.local_attention(q, k, v, call.positions, cache, call.window)
    y = ops.reshape(y, (batch, time, width))
    if call.record is not None:
        call.record("attention", y)
    return weights.dense("o_proj", y), dict(new or {})


def mlp_block(weights: Weights, x: Any) -> Any:
    """down(gelu(gate(x)) * up(x)) on x [b t m]."""
    gate, up = weights.dense("gate_proj", x), weights.dense("up_proj", x)
    return weights.dense("down_proj", engine.gelu_product(gate, up))
