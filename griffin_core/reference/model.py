"""The whole model in float64: embedding, residual blocks, final norm, logits (Griffin, section 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from griffin_core.checks import PAD
from griffin_core.config import RECURRENT, GriffinConfig
from griffin_core.layouts.params import EMBEDDING, FINAL_NORM, LM_HEAD, layer_prefix
from griffin_core.layouts.states import POSITION
from griffin_core.reference.attention import local_attention
from griffin_core.reference.norms import rms_norm
from griffin_core.reference.numeric import Tap, compaction, gather_time, gelu_tanh, no_tap, quiet, scatter_time, wide
from griffin_core.reference.rg_lru import recurrent_middle
from griffin_core.shapes import Array

MIDDLE = {
    "conv_weight": "conv_1d.weight",
    "conv_bias": "conv_1d.bias",
    "recurrent_param": "rg_lru.recurrent_param",
    "input_gate_weight": "rg_lru.input_gate_weight",
    "input_gate_bias": "rg_lru.input_gate_bias",
    "recurrent_gate_weight": "rg_lru.recurrent_gate_weight",
    "recurrent_gate_bias": "rg_lru.recurrent_gate_bias",
}
"""Names of ``recurrent_middle``'s parameters under a layer's ``temporal_block``."""


@dataclass(frozen=True)
class _Layer:
    """One residual block's view of the model: its parameters, positions and hooks."""

    config: GriffinConfig
    prefix: str
    params: Mapping[str, Array]
    positions: Array
    tap: Tap
    middle: Callable[..., tuple[Array, Array, Array]]

    def param(self, name: str) -> Array:
        return self.params[self.prefix + name]

    def norm(self, name: str, x: Array) -> Array:
        return self.tap(name, rms_norm(x, self.param(name + ".weight")))

    def dense(self, name: str, x: Array) -> Array:
        y = x @ wide(self.param(name + ".weight")).T
        bias = self.params.get(f"{self.prefix}{name}.bias")
        return self.tap(name.rpartition(".")[2], y if bias is None else y + wide(bias))


@quiet
def hidden(
    config: GriffinConfig,
    params: Mapping[str, Array],
    tokens: Int[Array, "b t"],
    positions: Int[Array, "b t"] | None = None,
    state: Mapping[str, Array] | None = None,
    padding: str = "any",
    tap: Tap = no_tap,
    middle: Callable[..., Any] = recurrent_middle,
) -> tuple[Float[Array, "b t m"], dict[str, Array] | None]:
    """The final norm's output for every token, and the state after the last.

    Args:
        params: canonical names and shapes, any float dtype.
        tokens: int [b t] ids (any value at padding).
        positions: int [b t]: 0 starts a document, -1 is padding, anywhere. None continues the state, or
            starts a document without one.
        state: from ``init_state`` or an earlier call; None for none, and then none is returned.
        padding: "any" compacts the rows first, as every backend does; "right" promises right-padded rows.
        tap: hook on every named activation (on compacted rows): layers.N.NAME, embedding, final_norm.
        middle: stands for ``recurrent_middle``.

    Returns:
        (x, state): float64 [b t m], 0 at padding, and a float64 state or None.
    """
    if positions is None:
        begin = np.zeros(len(tokens), np.int32) if state is None else np.asarray(state[POSITION])
        positions = begin[:, None] + np.arange(tokens.shape[1], dtype=np.int32)
    order = compaction(positions) if padding == "any" and (positions == PAD).any() else None
    if order is not None:
        tokens, positions = gather_time(tokens, order), gather_time(positions, order)
    real = positions != PAD
    x = wide(params[EMBEDDING][np.where(real, tokens, 0)]) * config.embedding_multiplier
    x = tap("embedding", x)
    out: dict[str, Array] = {}
    for index, kind in enumerate(config.layer_kinds):
        prefix = f"layers.{index}."
        layer = _Layer(config, layer_prefix(index), params, positions, _prefixed(tap, prefix), middle)
        x, new = _residual_block(layer, kind, x, _part(state, prefix))
        out |= {prefix + name: value for name, value in new.items()}
    x = tap("final_norm", rms_norm(x, params[FINAL_NORM]))
    x = np.where(real[..., None], x, 0.0)
    x = x if order is None else scatter_time(x, order)
    return x, None if state is None else {POSITION: _advance(state[POSITION], positions), **out}


def logits(
    config: GriffinConfig, params: Mapping[str, Array], x: Float[Array, "b t m"], tap: Tap = no_tap
) -> Float[Array, "b t v"]:
    """x times the embedding (or ``lm_head``), then c tanh(. / c) where the config caps; float64."""
    head = params[EMBEDDING if config.tie_embeddings else LM_HEAD]
    scores = tap("logits", wide(x) @ wide(head).T)
    cap = config.logits_soft_cap
    return scores if cap is None else cap * np.tanh(scores / cap)


def forward(
    config: GriffinConfig,
    params: Mapping[str, Array],
    tokens: Int[Array, "b t"],
    positions: Int[Array, "b t"] | None = None,
    state: Mapping[str, Array] | None = None,
    padding: str = "any",
    tap: Tap = no_tap,
    middle: Callable[..., Any] = recurrent_middle,
) -> tuple[Float[Array, "b t v"], dict[str, Array] | None]:
    """``logits`` of ``hidden``; arguments and state as there. Logits at padding are 0."""
    x, state = hidden(config, params, tokens, positions, state, padding, tap, middle)
    return logits(config, params, x, tap), state


def _residual_block(
    layer: _Layer, kind: str, x: Array, state: Mapping[str, Array] | None
) -> tuple[Array, dict[str, Array]]:
    """x + temporal(norm(x)), then x + mlp(norm(x))."""
    temporal = _recurrent_block if kind == RECURRENT else _attention_block
    mixed, new = temporal(layer, layer.norm("temporal_pre_norm", x), state)
    x = layer.tap("temporal_residual", x + mixed)
    return layer.tap("residual", x + _mlp(layer, layer.norm("channel_pre_norm", x))), new


def _recurrent_block(layer: _Layer, x: Array, state: Mapping[str, Array] | None) -> tuple[Array, dict[str, Array]]:
    y = layer.tap("gelu", gelu_tanh(layer.dense("temporal_block.linear_y", x)))
    x = layer.dense("temporal_block.linear_x", x)
    params = {ours: layer.param("temporal_block." + name) for ours, name in MIDDLE.items()}
    before = (None, None) if state is None else (state["h"], state["conv"])
    z, h, conv = layer.middle(x, params, *before, positions=layer.positions, tap=layer.tap)
    new = {} if state is None else {"h": h, "conv": conv}
    return layer.dense("temporal_block.linear_out", layer.tap("mixed", z * y)), new


def _attention_block(layer: _Layer, x: Array, state: Mapping[str, Array] | None) -> tuple[Array, dict[str, Array]]:
    config = layer.config
    q, k, v = (layer.dense(f"temporal_block.{name}_proj", x) for name in "qkv")
    q = q.reshape(*q.shape[:2], config.num_heads, config.head_dim)
    y, new = local_attention(q, k, v, layer.positions, state, config.attention_window)
    y = layer.tap("attention", y.reshape(*x.shape[:2], config.num_heads * config.head_dim))
    return layer.dense("temporal_block.o_proj", y), {} if new is None else {"k": new["k"], "v": new["v"]}


def _mlp(layer: _Layer, x: Array) -> Array:
    gate = layer.tap("mlp_gelu", gelu_tanh(layer.dense("mlp_block.gate_proj", x)))
    return layer.dense("mlp_block.down_proj", layer.tap("mlp", gate * layer.dense("mlp_block.up_proj", x)))


def _prefixed(tap: Tap, prefix: str) -> Tap:
    return tap if tap is no_tap else lambda name, value: tap(prefix + name, value)


def _part(state: Mapping[str, Array] | None, prefix: str) -> dict[str, Array] | None:
    """One layer's arrays, and the position, under short names."""
    if state is None:
        return None
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {**part, POSITION: state[POSITION]}


def _advance(before: Array, positions: Array) -> Array:
    """int32 [b]: one past each row's last real position, or as before when it has none."""
    after = np.array(before, np.int32)
    for row, values in enumerate(positions):
        real = values[values != PAD]
        if len(real):
            after[row] = real[-1] + 1
    return after
