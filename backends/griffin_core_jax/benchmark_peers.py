"""The official Flax implementation, run on the shapes of ``griffin bench`` where it is installed.

It keeps its own random weights: only the time counts. It trains twice: as it comes, which recomputes each block in the
backward pass, and with that left out, which is its fastest.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from griffin_core.config import ATTENTION, GriffinConfig

Call = Callable[[], object]


def installed(path: str, config: GriffinConfig, batch: int, tokens: int, context: int) -> list[tuple[str, Call]]:
    """(name, call) when the official code is installed and can express the config."""
    if path not in _MAKERS or importlib.util.find_spec("recurrentgemma") is None or not _expressible(config):
        return []
    sizes = (config.vocab_size, batch, tokens, context)
    if path != "train":
        return [("official JAX", _MAKERS[path](_model(config, False), *sizes))]
    return [
        ("official JAX", _MAKERS[path](_model(config, True), *sizes)),
        ("official JAX, nothing recomputed", _MAKERS[path](_model(config, False), *sizes)),
    ]


def _expressible(config: GriffinConfig) -> bool:
    """One number of heads and gate blocks, a window, tied embeddings."""
    return (
        config.gate_blocks == config.num_heads
        and config.head_dim * config.num_heads == config.width
        and config.attention_window is not None
        and config.tie_embeddings
    )


def _model(config: GriffinConfig, checkpointing: bool) -> Any:
    from recurrentgemma import common
    from recurrentgemma.jax import Griffin

    kinds = common.TemporalBlockType
    theirs = common.GriffinConfig(
        vocab_size=config.vocab_size,
        width=config.width,
        mlp_expanded_width=config.mlp_width,
        num_heads=config.num_heads,
        block_types=tuple(kinds.ATTENTION if k == ATTENTION else kinds.RECURRENT for k in config.layer_kinds),
        embeddings_scale_by_sqrt_dim=config.embedding_scale is not None,
        attention_window_size=(config.attention_window or 0) - 1,
        logits_soft_cap=config.logits_soft_cap or 0.0,
        lru_width=config.lru_width,
    )
    return Griffin(theirs, gradient_checkpointing=checkpointing, dtype=jnp.float32)


def _weights(model: Any) -> Any:
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32), _places(1, 4))


def _prefill(model: Any, vocabulary: int, batch: int, tokens: int, context: int) -> Call:
    ids, places, apply = _ids(vocabulary, batch, tokens), _places(batch, tokens), jax.jit(model.apply)
    weights = _weights(model)
    return lambda: jax.block_until_ready(apply(weights, ids, places))  # it has no way to leave out logits


def _decode(model: Any, vocabulary: int, batch: int, tokens: int, context: int) -> Call:
    ids, apply = _ids(vocabulary, batch, context + 1), jax.jit(model.apply, donate_argnums=3)
    weights = _weights(model)
    _, cache = jax.jit(model.apply)(weights, ids[:, :context], _places(batch, context))
    held = [cache, context]

    def run() -> None:
        token = ids[:, context:]
        for _ in range(tokens):
            logits, held[0] = apply(weights, token, jnp.full((batch, 1), held[1], jnp.int32), held[0])
            token = jnp.argmax(logits[:, -1:], axis=-1).astype(jnp.int32)
            held[1] += 1
        jax.block_until_ready(token)

    return run


def _train(model: Any, vocabulary: int, batch: int, tokens: int, context: int) -> Call:
    import optax

    ids, places = _ids(vocabulary, batch, tokens + 1), _places(batch, tokens)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4))

    def loss(weights: Any) -> jax.Array:
        logits, _ = model.apply(weights, ids[:, :-1], places)
        return optax.softmax_cross_entropy_with_integer_labels(logits, ids[:, 1:]).mean()

    def update(weights: Any, state: Any) -> tuple[Any, Any, jax.Array]:
        value, gradients = jax.value_and_grad(loss)(weights)
        changes, state = optimiser.update(gradients, state, weights)
        return optax.apply_updates(weights, changes), state, value

    step = jax.jit(update, donate_argnums=(0, 1))
    weights = _weights(model)
    held = [weights, optimiser.init(weights)]

    def run() -> float:
        held[0], held[1], value = step(*held)
        return float(value)

    return run


def _ids(vocabulary: int, batch: int, tokens: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(3, vocabulary, (batch, tokens)), jnp.int32)


def _places(batch: int, tokens: int) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32), (batch, tokens))


_MAKERS: dict[str, Callable[..., Call]] = {"prefill": _prefill, "decode": _decode, "train": _train}
