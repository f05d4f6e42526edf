"""The whole model: embedding, residual blocks, final norm, logits (Griffin, section 2). Pure functions, no classes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from griffin_core.checks import PAD
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.layouts.states import POSITION
from griffin_core_jax import admission
from griffin_core_jax.arrays import as_dtype
from griffin_core_jax.attention.ring import ends
from griffin_core_jax.blocks import Call, Constrain, residual_block, unconstrained
from griffin_core_jax.devices import platform, targeting
from griffin_core_jax.dispatch import Wanted, wanted_now
from griffin_core_jax.layout import SEGMENTS, segments
from griffin_core_jax.norms import rms_norm
from griffin_core_jax.padding import compaction, gather_time, scatter_time
from griffin_core_jax.products import einsum

Params = Mapping[str, Any]
State = Mapping[str, Any]
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def hidden(
    config: GriffinConfig,
    params: Params,
    tokens: Array,
    positions: Array | None = None,
    state: State | None = None,
    padding: str = "any",
    kernel: str | None = None,
    compute_dtype: str | None = None,
    capture: dict[str, Array] | None = None,
) -> tuple[Array, dict[str, Any] | None]:
    """The final norm's output for every token, and the state after the last.

    Outside a traced function ids and positions are checked, and a length that has not been compiled yet is padded to
    a few standard ones (``admission``); inside one neither can be done.

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
        InputError: tokens or positions are not legal.
    """
    if padding not in ("any", "right"):
        raise InputError(f"padding={padding!r}; expected 'any', or 'right' to promise right-padded rows")
    dtype = as_dtype(compute_dtype, params["embedding"].dtype)
    tokens, positions, padding, time = admission.admit(config, tokens, positions, state, padding, capture is None)
    wanted = wanted_now(kernel, tokens, params["embedding"])
    choice = (padding, str(jnp.dtype(dtype).name), capture is not None)
    x, new, seen = _hidden(config, wanted, choice, params, tokens, positions, state)
    if capture is not None:
        capture |= seen
    return (x if x.shape[1] == time else x[:, :time]), new


def logits(config: GriffinConfig, params: Params, x: Array, compute_dtype: str | None = None) -> Array:
    """x times the embedding (or the head), then c tanh(. / c) where the config caps.

    Args:
        x: [b t m] from ``hidden``.

    Returns:
        float32 [b t v].
    """
    dtype = as_dtype(compute_dtype, params["embedding"].dtype)
    return _logits(config, platform(x), params["embedding" if config.tie_embeddings else "head"], x.astype(dtype))


def forward(
    config: GriffinConfig,
    params: Params,
    tokens: Array,
    positions: Array | None = None,
    state: State | None = None,
    padding: str = "any",
    kernel: str | None = None,
    compute_dtype: str | None = None,
    capture: dict[str, Array] | None = None,
) -> tuple[Array, dict[str, Any] | None]:
    """``logits`` of ``hidden``: (float32 [b t v], state or None). Arguments as there; logits at padding are 0."""
    x, state = hidden(config, params, tokens, positions, state, padding, kernel, compute_dtype, capture)
    return logits(config, params, x, compute_dtype), state


def run_hidden(
    config: GriffinConfig,
    params: Params,
    tokens: Array,
    positions: Array,
    state: State | None = None,
    *,
    dtype: Any,
    kernel: str | None = None,
    capture: bool = False,
    wrap: Wrap | None = None,
    constrain: Constrain = unconstrained,
) -> tuple[Array, dict[str, Any] | None, dict[str, Array]]:
    """``hidden`` on right-padded rows, to be traced; ``wrap`` stands around each layer (rematerialisation).

    Args:
        positions: int32 [b t], right-padded.
        dtype: compute dtype.
        constrain: called on named activations (``blocks.Constrain``).

    Returns:
        (x, state or None, captured activations by "layers.N.name").
    """
    pad = positions == PAD
    x = embed(config, params["embedding"], jnp.where(pad, 0, tokens), dtype)
    x = constrain("residual", x)
    call = Call(
        positions=positions,
        before=None if state is None else state[POSITION],
        head_dim=config.head_dim,
        window=config.attention_window,
        kernel=kernel,
        capture=capture,
        constrain=constrain,
    )
    x, stacks, seen = run_layers(config, params[SEGMENTS], x, call, None if state is None else state[SEGMENTS], wrap)
    x = jnp.where(pad[..., None], 0, rms_norm(x, params["final_norm"]))
    new = None if state is None else {POSITION: ends(positions, state[POSITION])[1], SEGMENTS: stacks}
    return x, new, seen


def run_layers(
    config: GriffinConfig, params: Any, x: Array, call: Call, states: Any, wrap: Wrap | None = None
) -> tuple[Array, Any, dict[str, Array]]:
    """Every residual block: one scan over the periods of each segment. Returns (x, states, captured)."""
    kept, seen = [], {}
    for index, segment in enumerate(segments(config)):
        state = None if states is None else states[index]

        def period(x: Array, here: Any, kinds: tuple[str, ...] = segment.kinds) -> tuple[Array, Any]:
            weights, before = here
            after, found = [], []
            for place, kind in enumerate(kinds):
                layer = functools.partial(residual_block, kind=kind, call=call)
                layer = layer if wrap is None else wrap(layer)
                x, new, captured = layer(weights[place], x=x, state=None if before is None else before[place])
                after.append(new)
                found.append(captured)
            return x, (tuple(after), tuple(found))

        x, (after, found) = lax.scan(period, x, (params[index], state))
        kept.append(after)
        for place, captured in enumerate(found):
            for number, layer in enumerate(segment.layers(place)):
                seen |= {f"layers.{layer}.{name}": value[number] for name, value in captured.items()}
    return x, None if states is None else tuple(kept), seen


def embed(config: GriffinConfig, embedding: Array, tokens: Array, dtype: Any) -> Array:
    """Rows of the embedding in the compute dtype, scaled where the config says so."""
    x = jnp.take(embedding, tokens, axis=0, mode="clip").astype(dtype)
    return x * jnp.asarray(config.embedding_multiplier, dtype) if config.embedding_multiplier != 1.0 else x


def cap_logits(config: GriffinConfig, scores: Array) -> Array:
    """c tanh(scores / c) where the config caps."""
    cap = config.logits_soft_cap
    return scores if cap is None else jnp.tanh(scores / cap) * cap


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _hidden(
    config: GriffinConfig,
    wanted: Wanted,
    choice: tuple[str, str, bool],
    params: Params,
    tokens: Array,
    positions: Array | None,
    state: State | None,
) -> tuple[Array, Any, dict[str, Array]]:
    """``wanted`` and ``choice`` are everything that decides about the program besides shapes."""
    padding, dtype, capture = choice
    if positions is None:
        begin = jnp.zeros(tokens.shape[0], jnp.int32) if state is None else state[POSITION]
        positions = begin[:, None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)
        padding = "right"
    order = compaction(positions) if padding == "any" else None
    if order is not None:
        tokens, positions = gather_time(tokens, order), gather_time(positions, order)
    with targeting(wanted.platform):
        x, state, seen = run_hidden(
            config, params, tokens, positions, state, dtype=as_dtype(dtype), kernel=wanted.kernel, capture=capture
        )
    if order is not None:
        x, seen = scatter_time(x, order), {name: scatter_time(value, order) for name, value in seen.items()}
    return x, state, seen


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(config: GriffinConfig, where: str, head: Array, x: Array) -> Array:
    with targeting(where):
        return cap_logits(config, einsum("btm,vm->btv", x, head))
