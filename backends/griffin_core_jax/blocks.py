"""The blocks of the model as pure functions of a dict of arrays, usable alone in any JAX model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from griffin_core import registry
from griffin_core.config import RECURRENT
from griffin_core.layouts.states import POSITION
from griffin_core_jax import products
from griffin_core_jax.attention.compose import local_attention
from griffin_core_jax.attention.step import attend_step
from griffin_core_jax.conv.compose import conv1d
from griffin_core_jax.devices import settled
from griffin_core_jax.dispatch import BACKEND
from griffin_core_jax.norms import rms_norm
from griffin_core_jax.scan.compose import gated_scan, recurrent_middle
from griffin_core_jax.scan.gates import block_gates, terms

Weights = Mapping[str, Array]
"""Arrays of one layer under the names of ``layout``: "linear_x.kernel" [in out], "linear_x.bias", "conv_weight", ..."""
LayerState = Mapping[str, Array]
"""One layer's part of a state: h [b d] and conv [b w-1 d], or k and v [b s e]."""
Constrain = Callable[[str, Array], Array]
"""Called on named activations; a sharded program pins their layout there."""


def unconstrained(name: str, x: Array) -> Array:
    """What ``constrain`` is when nothing is sharded."""
    return x


@dataclass(frozen=True, kw_only=True)
class Call:
    """What every block of one forward pass needs to know.

    Attributes:
        positions: int32 [b t], right-padded rows.
        before: int32 [b], the state's position before the call; None without a state.
        head_dim: size of an attention head.
        window: keys that a query sees; None is global.
        kernel: name of a kernel, or None.
        capture: whether blocks return their activations.
        step: one token a row, and every ring is the whole window: attention works on the ring alone.
        constrain: see ``Constrain``.
        middle, attention: the two operations that mix tokens; a program whose time axis is split puts others there.
    """

    positions: Array
    before: Array | None = None
    head_dim: int = 0
    window: int | None = None
    kernel: str | None = None
    capture: bool = False
    step: bool = False
    constrain: Constrain = unconstrained
    middle: Callable[..., Any] = recurrent_middle
    attention: Callable[..., Any] = local_attention


Seen = dict[str, Array]


def residual_block(
    weights: Weights, kind: str, x: Array, call: Call, state: LayerState | None
) -> tuple[Array, dict[str, Array], Seen]:
    """x + temporal(norm(x)), then x + mlp(norm(x)) (Griffin, section 2.1).

    Args:
        weights: those of one layer.
        kind: "recurrent" or "attention".
        x: [b t m] in the compute dtype.
        state: this layer's state, or None for none.

    Returns:
        (x, state, seen): [b t m], the new state (empty without one), captured activations (empty unless asked for).
    """
    block = recurrent_block if kind == RECURRENT else attention_block
    normed = call.constrain("temporal_in", rms_norm(x, weights["temporal_norm"]))
    mixed, new, seen = block(weights, normed, call, state)
    x = call.constrain("residual", x + call.constrain("temporal_out", mixed))
    mixed = mlp_block(weights, call.constrain("mlp_in", rms_norm(x, weights["channel_norm"])), call)
    return call.constrain("residual", x + call.constrain("mlp_out", mixed)), new, seen


def recurrent_block(
    weights: Weights, x: Array, call: Call, state: LayerState | None = None
) -> tuple[Array, dict[str, Array], Seen]:
    """linear_out(gelu(linear_y(x)) * rg_lru(conv(linear_x(x)))) on x [b t m]; results as in ``residual_block``."""
    gate = call.constrain("recurrent", dense(weights, "linear_y", x))
    z = call.constrain("recurrent", dense(weights, "linear_x", x))
    h0, conv = (None, None) if state is None else (state["h"], state["conv"])
    middle = _captured_middle if call.capture else _middle
    y, h, conv, seen = middle(z, weights, h0, conv, call)
    new = {} if state is None else {"h": h, "conv": conv.astype(state["conv"].dtype)}
    return gated_dense(weights, "linear_out", gate, call.constrain("recurrent", y)), new, seen


def attention_block(
    weights: Weights, x: Array, call: Call, state: LayerState | None = None
) -> tuple[Array, dict[str, Array], Seen]:
    """Local multi-query attention on x [b t m]; results as in ``residual_block``."""
    q = call.constrain("heads", dense(weights, "q_proj", x).reshape(*x.shape[:2], -1, call.head_dim))
    k, v = dense(weights, "k_proj", x), dense(weights, "v_proj", x)
    kept: dict[str, Array] = {}
    if call.step and state is not None:
        y, kept["k"], kept["v"] = attend_step(q, k, v, call.positions, state["k"], state["v"])
    else:
        cache = None if state is None or call.before is None else {**state, POSITION: call.before}
        y, new = call.attention(q, k, v, call.positions, cache, call.window)
        kept = {} if new is None else {"k": new["k"], "v": new["v"]}
    y = y.reshape(*y.shape[:2], -1)
    return dense(weights, "o_proj", y), kept, {"attention": y} if call.capture else {}


def mlp_block(weights: Weights, x: Array, call: Call) -> Array:
    """down(gelu(gate(x)) * up(x)) on x [b t m]."""
    gate = call.constrain("mlp", dense(weights, "gate_proj", x))
    return gated_dense(weights, "down_proj", gate, call.constrain("mlp", dense(weights, "up_proj", x)))


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(1,))
def gated_dense(weights: Weights, name: str, gate: Array, x: Array) -> Array:
    """``dense`` of gelu(gate) * x; the backward pass keeps the operands alone."""
    return dense(weights, name, settled(jax.nn.gelu(gate, approximate=True) * x))


def dense(weights: Weights, name: str, x: Array) -> Array:
    """x @ kernel + bias (where there is one), in x's dtype with float32 accumulation. Every dense product goes here."""
    kernel, bias = weights[f"{name}.kernel"], weights.get(f"{name}.bias")
    return products.dense(x, kernel, bias)


def _middle(z: Array, weights: Weights, h0: Array | None, conv: Array | None, call: Call) -> Any:
    return *call.middle(z, middle_params(weights), h0, conv, call.positions, None, call.kernel), {}


def _captured_middle(z: Array, weights: Weights, h0: Array | None, conv: Array | None, call: Call) -> Any:
    """``recurrent_middle`` composed of its parts; a kernel for the whole or for ``rg_lru`` is not used."""
    params = middle_params(weights)
    part = registry.part_kernel(BACKEND, "conv1d", call.kernel)
    z, conv = conv1d(z, params["conv_weight"], params["conv_bias"], conv, call.positions, None, part)
    gate_x, gate_a = block_gates(z, params)
    found = terms(z, gate_x, gate_a, params["recurrent_param"])
    scan = registry.part_kernel(BACKEND, "gated_scan", call.kernel)
    y, h = gated_scan(z, gate_x, gate_a, params["recurrent_param"], h0, call.positions, None, scan)
    seen = {"conv": z, "gate_x": gate_x, "gate_a": gate_a, "log_a": found.log_a, "h": y}
    return y, h, conv, {**seen, "input_gate": found.input_gate, "recurrent_gate": found.recurrent_gate}


def middle_params(weights: Weights) -> dict[str, Array]:
    """The parameters of ``recurrent_middle`` among those of a layer."""
    names = ("conv_weight", "conv_bias", "recurrent_param")
    gates = [f"{gate}_{part}" for gate in ("input_gate", "recurrent_gate") for part in ("weight", "bias")]
    return {name: weights[name] for name in (*names, *gates)}
