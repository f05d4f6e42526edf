"""The whole model: embedding, residual blocks, final norm, logits (Griffin, section 2), on tensors of the engine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from keras import ops

from griffin_core import registry
from griffin_core.checks import PAD
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.layouts.params import EMBEDDING, FINAL_NORM, LM_HEAD, layer_prefix
from griffin_core.layouts.states import POSITION
from griffin_core_keras import admission
from griffin_core_keras.blocks import Call, LayerState, residual_block
from griffin_core_keras.dtypes import as_dtype
from griffin_core_keras.engine import engine
from griffin_core_keras.padding import compaction, ends, following, gather_time, scatter_time
from griffin_core_keras.weights import FlatWeights

State = Mapping[str, Any]
Layer = Callable[[Any, Call, LayerState | None], tuple[Any, dict[str, Any]]]
Recorder = Callable[[str, Any], Any]


class Source(Protocol):
    """Where ``run_hidden`` finds the model: a flat dict or Keras layers."""

    def embed(self, tokens: Any) -> Any:
        """Rows of the embedding [b t m], in the compute dtype, not scaled."""

    def layer(self, index: int, kind: str) -> Layer:
        """The residual block of one layer."""

    def final(self, x: Any) -> Any:
        """The final norm."""


class FlatSource:
    """A model in a flat dict of tensors (``native.load_params``)."""

    def __init__(self, params: Mapping[str, Any], dtype: str) -> None:
        self.params, self.dtype = params, dtype

    def embed(self, tokens: Any) -> Any:
        """Rows of the embedding."""
        return ops.cast(ops.take(self.params[EMBEDDING], tokens, axis=0), self.dtype)

    def layer(self, index: int, kind: str) -> Layer:
        """The residual block on this layer's part of the dict."""
        weights = FlatWeights(self.params, layer_prefix(index), self.dtype)
        return lambda x, call, state: residual_block(weights, kind, x, call, state)

    def final(self, x: Any) -> Any:
        """The final norm."""
        return engine.rms_norm(x, self.params[FINAL_NORM])


def hidden(
    config: GriffinConfig,
    params: Mapping[str, Any],
    tokens: Any,
    positions: Any | None = None,
    state: State | None = None,
    padding: str = "any",
    kernel: str | None = None,
    compute_dtype: str | None = None,
    capture: dict[str, Any] | None = None,
) -> tuple[Any, dict[str, Any] | None]:
    """The final norm's output for every token, and the state after the last.

    Outside a traced function ids and positions are checked; on engines that compile, a length that has no program yet
    is padded to a few standard ones there.

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
    dtype = as_dtype(compute_dtype, engine.dtype_name(params[EMBEDDING]))
    tokens, positions, padding, time = admission.admit(config, tokens, positions, state, padding, capture is None)
    run = _program(
        config, padding, registry.requested_kernel(kernel), registry.kernels("keras"), dtype, capture is not None
    )
    x, new, seen = run(dict(params), tokens, positions, None if state is None else dict(state))
    if capture is not None:
        capture |= seen
    return (x if x.shape[1] == time else x[:, :time]), new


def logits(config: GriffinConfig, params: Mapping[str, Any], x: Any, compute_dtype: str | None = None) -> Any:
    """x times the embedding (or ``lm_head``), then c tanh(. / c) where the config caps.

    Args:
        x: [b t m] from ``hidden``.

    Returns:
        float32 [b t v].
    """
    head = params[EMBEDDING if config.tie_embeddings else LM_HEAD]
    dtype = as_dtype(compute_dtype, engine.dtype_name(params[EMBEDDING]))
    return _capped(config)(ops.cast(x, dtype), head)


def forward(
    config: GriffinConfig,
    params: Mapping[str, Any],
    tokens: Any,
    positions: Any | None = None,
    state: State | None = None,
    padding: str = "any",
    kernel: str | None = None,
    compute_dtype: str | None = None,
    capture: dict[str, Any] | None = None,
) -> tuple[Any, dict[str, Any] | None]:
    """``logits`` of ``hidden``: (float32 [b t v], state or None). Arguments as there; logits at padding are 0."""
    x, state = hidden(config, params, tokens, positions, state, padding, kernel, compute_dtype, capture)
    return logits(config, params, x, compute_dtype), state


def run_hidden(
    config: GriffinConfig,
    source: Source,
    tokens: Any,
    positions: Any | None = None,
    state: State | None = None,
    padding: str = "any",
    kernel: str | None = None,
    record: Recorder | None = None,
    wrap: Callable[[Layer], Layer] | None = None,
) -> tuple[Any, dict[str, Any] | None]:
    """``hidden`` on any source, to be traced; ``wrap`` stands around each layer (rematerialisation)."""
    before = None if state is None else state[POSITION]
    if positions is None:
        positions, padding = following(before, tokens), "right"
    order = compaction(positions) if padding == "any" else None
    if order is not None:
        tokens, positions = gather_time(tokens, order), gather_time(positions, order)
    pad = positions == PAD
    x = source.embed(ops.where(pad, 0, ops.cast(tokens, "int32")))
    if config.embedding_multiplier != 1.0:
        x = x * ops.cast(config.embedding_multiplier, engine.dtype_name(x))
    out: dict[str, Any] = {}
    for index, kind in enumerate(config.layer_kinds):
        prefix = f"layers.{index}."
        call = Call(
            positions=positions,
            head_dim=config.head_dim,
            window=config.attention_window,
            kernel=kernel,
            record=None if record is None else _recorder(record, prefix, order),
        )
        layer = source.layer(index, kind)
        x, new = (layer if wrap is None else wrap(layer))(x, call, layer_state(state, prefix))
        out |= {prefix + name: new[name] for name in ("h", "conv", "k", "v") if name in new}
    x = ops.where(pad[..., None], ops.zeros_like(x), source.final(x))
    x = x if order is None else scatter_time(x, order)
    return x, None if before is None else {POSITION: ends(positions, before), **out}


def cap_logits(config: GriffinConfig, scores: Any) -> Any:
    """c tanh(scores / c) where the config caps."""
    cap = config.logits_soft_cap
    return scores if cap is None else ops.tanh(scores / cap) * cap


def layer_state(state: State | None, prefix: str) -> dict[str, Any] | None:
    """One layer's arrays under short names, with the position; None without a state."""
    if state is None:
        return None
    found = {name: state[prefix + name] for name in ("h", "conv", "k", "v") if prefix + name in state}
    return {**found, POSITION: state[POSITION]}


@functools.lru_cache(maxsize=64)
def _program(
    config: GriffinConfig, padding: str, kernel: str, kernels: tuple[Any, ...], dtype: str, capture: bool
) -> Callable[..., Any]:
    """``run_hidden``, compiled where the engine compiles. The arguments are what decides about it besides shapes."""

    def run(params: Any, tokens: Any, positions: Any, state: Any) -> tuple[Any, Any, dict[str, Any]]:
        seen: dict[str, Any] = {}
        source = FlatSource(params, dtype)
        record = seen.__setitem__ if capture else None
        x, new = run_hidden(config, source, tokens, positions, state, padding, kernel, record)
        return x, new, seen

    return engine.compiled(run)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=64)
def _capped(config: GriffinConfig) -> Callable[..., Any]:
    return engine.compiled(lambda x, head: cap_logits(config, engine.project(x, head)))  # type: ignore[no-any-return]


def _recorder(record: Recorder, prefix: str, order: Any | None) -> Recorder:
    def keep(name: str, value: Any) -> None:
        record(prefix + name, value if order is None else scatter_time(value, order))

    return keep
