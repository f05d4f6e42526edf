"""``decode``: many tokens in one compiled loop, sampling inside; no logits travel."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from griffin_core.checks import PAD, check_tokens
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.layouts.states import POSITION
from griffin_core.sampling import SamplingRows
from griffin_core_jax import sampling as sampler
from griffin_core_jax.admission import cache_size
from griffin_core_jax.arrays import as_dtype
from griffin_core_jax.attention.ring import check_room
from griffin_core_jax.blocks import Call, residual_block
from griffin_core_jax.decoding.views import layer_weights
from griffin_core_jax.devices import targeting
from griffin_core_jax.dispatch import Wanted, wanted_now
from griffin_core_jax.layout import SEGMENTS, segments
from griffin_core_jax.model import cap_logits, embed, run_layers
from griffin_core_jax.norms import rms_norm
from griffin_core_jax.products import einsum

LEAST = 16
"""Tokens that a program has room for at least; more is the next power of two, so that few programs are compiled."""


def decode(
    config: GriffinConfig,
    params: Mapping[str, Any],
    state: Mapping[str, Any],
    token: Array,
    n: int,
    sampling: SamplingRows,
    active: Array | None = None,
    kernel: str | None = None,
    compute_dtype: str | None = None,
) -> tuple[Array, Array, dict[str, Any]]:
    """Consume ``token``, sample the next, and so on, n times. The last token is not consumed.

    Args:
        state: has seen everything before ``token``.
        token: int32 [b], the last token of each row.
        n: how many tokens to sample.
        sampling: settings, seeds and recent tokens of the rows.
        active: bool [b]; other rows keep their state, and get tokens -1 and log probabilities 0.
        kernel: name of a kernel for the recurrent operations, or None.
        compute_dtype: dtype of the products; None is that of the embedding.

    Returns:
        (tokens int32 [b n], logprobs float32 [b n] by the model's own softmax, state).

    Raises:
        InputError: n is negative, ``token`` does not have one id for each row, or a global layer's cache is full.
    """
    before = np.asarray(state[POSITION])
    ids = np.asarray(token)
    live = np.ones(len(before), bool) if active is None else np.asarray(active, bool)
    if n < 0 or ids.shape != before.shape:
        raise InputError(f"decode of n={n} tokens after token of shape {ids.shape}; expected n >= 0 and {before.shape}")
    check_tokens(config, ids[:, None], np.where(live, before, PAD)[:, None])
    if config.has_global_attention:
        check_room(cache_size(state), None, np.where(live, before + n, before))
    if n == 0 or not live.any():
        nothing = jnp.full((len(before), n), -1, jnp.int32), jnp.zeros((len(before), n), jnp.float32)
        return *nothing, dict(state)
    filters = sampler.Filters.of(sampling.settings)
    wanted = wanted_now(kernel, params["embedding"])
    dtype = str(jnp.dtype(as_dtype(compute_dtype, params["embedding"].dtype)).name)
    room = LEAST if n <= LEAST else 1 << (n - 1).bit_length()
    layers = layer_weights(config, params) if wanted.platform == "cpu" else params[SEGMENTS]
    top = {name: value for name, value in params.items() if name != SEGMENTS}
    tokens, logprobs, after = _decode(
        config, wanted, (dtype, filters, room), top, layers, dict(state), ids.astype(np.int32), np.int32(n),
        sampler.numbers_of(sampling, filters), live,
    )  # fmt: skip
    return tokens[:, :n], logprobs[:, :n], after


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _decode(
    config: GriffinConfig,
    wanted: Wanted,
    choice: tuple[str, sampler.Filters, int],
    top: Mapping[str, Array],
    layers: Any,
    state: Mapping[str, Any],
    token: Array,
    n: Array,
    numbers: sampler.Numbers,
    live: Array,
) -> tuple[Array, Array, dict[str, Any]]:
    dtype, filters, room = choice
    apart = wanted.platform == "cpu"
    through = _apart if apart else run_layers
    top, layers = _in_dtype(top, dtype), _in_dtype(layers, dtype)
    batch = token.shape[0]

    def step(carry: Any) -> Any:
        i, token, numbers, position, stacks, tokens, logprobs = carry
        where = jnp.where(live, position, PAD)[:, None]
        call = Call(positions=where, before=position, head_dim=config.head_dim, kernel=wanted.kernel, step=True)
        x = embed(config, top["embedding"], token[:, None], jnp.dtype(dtype))
        x, stacks = through(config, layers, x, call, stacks)[:2]
        scores = _scores(config, top, x)
        position = jnp.where(live, position + 1, position)
        token = sampler.sample(filters, numbers, scores, position)
        logprob = sampler.log_probability(scores, token)
        tokens = lax.dynamic_update_index_in_dim(tokens, jnp.where(live, token, -1), i, axis=1)
        logprobs = lax.dynamic_update_index_in_dim(logprobs, jnp.where(live, logprob, 0.0), i, axis=1)
        return i + 1, token, sampler.push(numbers, token, live), position, stacks, tokens, logprobs

    empty = (jnp.full((batch, room), -1, jnp.int32), jnp.zeros((batch, room), jnp.float32))
    stacks = _split(config, state[SEGMENTS]) if apart else state[SEGMENTS]
    start = (jnp.int32(0), token, numbers, state[POSITION], stacks, *empty)
    with targeting(wanted.platform):
        _, _, _, position, stacks, tokens, logprobs = lax.while_loop(lambda carry: carry[0] < n, step, start)
    return tokens, logprobs, {POSITION: position, SEGMENTS: _join(config, stacks) if apart else stacks}


def _apart(config: GriffinConfig, layers: Any, x: Array, call: Call, states: Any) -> tuple[Array, Any]:
    """Every residual block, written out: each reads its own weights in place."""
    after = []
    for kind, weights, state in zip(config.layer_kinds, layers, states, strict=True):
        x, new, _ = residual_block(weights, kind, x, call, state)
        after.append(new)
    return x, tuple(after)


def _scores(config: GriffinConfig, top: Mapping[str, Array], x: Array) -> Array:
    """Float32 logits [b v] of x [b 1 m]."""
    x = rms_norm(x, top["final_norm"])[:, 0]
    head = top["embedding" if config.tie_embeddings else "head"]
    # Alone, the product streams the weights fastest: nothing is fused into it.
    return cap_logits(config, lax.optimization_barrier(einsum("bm,vm->bv", x, head)))


def _in_dtype(weights: Any, dtype: str) -> Any:
    """Weights in the compute dtype, the decay parameter as it is; outside the loop, so that it is done once."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x if path[-1] == jax.tree_util.DictKey("recurrent_param") else x.astype(dtype), weights
    )


def _split(config: GriffinConfig, stacks: Any) -> Any:
    found = {}
    for segment, places in zip(segments(config), stacks, strict=True):
        for place, arrays in enumerate(places):
            for number, layer in enumerate(segment.layers(place)):
                found[layer] = {name: value[number] for name, value in arrays.items()}
    return tuple(found[layer] for layer in sorted(found))


def _join(config: GriffinConfig, states: Any) -> Any:
    return tuple(
        tuple(
            jax.tree.map(lambda *parts: jnp.stack(parts), *(states[layer] for layer in segment.layers(place)))
            for place in range(len(segment.kinds))
        )
        for segment in segments(config)
    )
