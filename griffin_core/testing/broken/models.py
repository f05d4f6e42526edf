"""Planted bugs in whole backends: each replaces one function of the numpy backend."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from griffin_core import registry
from griffin_core.checks import PAD
from griffin_core.layouts.states import POSITION
from griffin_core.shapes import Array

Change = Callable[..., Any]


def sound() -> ModuleType:
    """The backend that the bugs are planted in."""
    return registry.load_backend("numpy")


def planted(name: str, change: Change) -> Any:
    """The numpy backend with one function replaced."""
    return SimpleNamespace(**{**vars(sound()), name: change})


def _positions(tokens: Array, positions: Any, state: Any) -> Array:
    if positions is not None:
        given: Array = positions
        return given
    begin = np.zeros(len(tokens), np.int32) if state is None else state[POSITION]
    first: Array = begin[:, None]
    return first + np.arange(tokens.shape[1], dtype=np.int32)


def forgets_conv_state(
    config: Any, params: Any, tokens: Array, positions: Any = None, state: Any = None, **options: Any
) -> Any:
    """The convolution starts anew in every call."""
    logits, after = sound().forward(config, params, tokens, positions, state, **options)
    if after is not None:
        after = {name: np.zeros_like(x) if name.endswith(".conv") else x for name, x in after.items()}
    return logits, after


def short_window(
    config: Any, params: Any, tokens: Array, positions: Any = None, state: Any = None, **options: Any
) -> Any:
    """The window counts the keys before the query, not the query itself (shown where no cache is involved)."""
    logits, after = sound().forward(config, params, tokens, positions, state, **options)
    if (config.attention_window or 1) > 1 and (state is None or not state[POSITION].any()):
        shorter = config.replace(attention_window=config.attention_window - 1)
        logits, _ = sound().forward(shorter, params, tokens, positions, None, **options)
    return logits, after


def reads_padding(
    config: Any, params: Any, tokens: Array, positions: Any = None, state: Any = None, **options: Any
) -> Any:
    """Padding in front of a row is fed as tokens."""
    where = np.array(_positions(tokens, positions, state))
    for row in where:
        real = np.flatnonzero(row != PAD)
        if len(real) and real[0] and row[real[0]] == 0:
            row[: real[-1] + 1] = np.arange(real[-1] + 1)
    tokens = np.where(where == PAD, tokens, np.clip(tokens, 0, config.vocab_size - 1))
    logits, after = sound().forward(config, params, tokens, where, state, **options)
    pads = np.zeros(tokens.shape, bool) if positions is None else positions == PAD
    return np.where(pads[..., None], np.float32(0), logits), after


def one_document(
    config: Any, params: Any, tokens: Array, positions: Any = None, state: Any = None, **options: Any
) -> Any:
    """Document starts inside a row are not seen."""
    where = np.array(_positions(tokens, positions, state))
    for row in where:
        real = np.flatnonzero(row != PAD)
        row[real] = (row[real[0]] if len(real) else 0) + np.arange(len(real))
    return sound().forward(config, params, tokens, where, state, **options)


def sorted_take(state: Any, rows: Any) -> Any:
    """Gathered rows come out sorted."""
    return sound().take(state, sorted(rows))


def put_in_place(state: Any, rows: Any, other: Any) -> Any:
    """Rows are replaced in the state that was given."""
    for name, value in sound().put(state, rows, other).items():
        state[name][...] = value
    return state


def narrow_load(config: Any, canonical: Any, dtype: Any = None, device: Any = None) -> Any:
    """A loaded recurrent state passes through float16."""
    narrow = {n: x.astype(np.float16).astype(x.dtype) if n.endswith(".h") else x for n, x in canonical.items()}
    return sound().load_state(config, narrow, dtype, device)


def transposed_dump(config: Any, params: Any) -> Any:
    """Square weights come back transposed."""
    found = sound().dump_params(config, params)
    return {n: x.swapaxes(-1, -2) if x.ndim == 3 and x.shape[-1] == x.shape[-2] else x for n, x in found.items()}


def eager_decode(
    config: Any, params: Any, state: Any, token: Any, n: int, sampling: Any, *rest: Any, **options: Any
) -> Any:
    """The last token that was sampled is consumed too."""
    tokens, logprobs, after = sound().decode(config, params, state, token, n, sampling, *rest, **options)
    live = tokens[:, -1] >= 0
    where = np.where(live, after[POSITION], PAD)[:, None].astype(np.int32)
    _, after = sound().forward(config, params, np.maximum(tokens[:, -1:], 0), where, after)
    return tokens, logprobs, after


def decode_moves_all(
    config: Any, params: Any, state: Any, token: Any, n: int, sampling: Any, active: Any = None, **options: Any
) -> Any:
    """Inactive rows are decoded, and only their tokens hidden."""
    tokens, logprobs, after = sound().decode(config, params, state, token, n, sampling, **options)
    live = np.ones(len(tokens), bool) if active is None else np.asarray(active)
    return np.where(live[:, None], tokens, np.int32(-1)), np.where(live[:, None], logprobs, np.float32(0)), after


def filtered_logprobs(
    config: Any, params: Any, state: Any, token: Any, n: int, sampling: Any, *rest: Any, **options: Any
) -> Any:
    """Log probabilities are those after temperature."""
    tokens, logprobs, after = sound().decode(config, params, state, token, n, sampling, *rest, **options)
    return tokens, logprobs * np.float32(sampling.settings.temperature or 1.25), after


def careless_packing(
    x: Array, log_a: Array, h0: Any = None, reset: Any = None, starts: Any = None, kernel: Any = None
) -> tuple[Array, Array]:
    """Packed sequences are one sequence: the state runs from each into the next."""
    if starts is None:
        found: tuple[Array, Array] = sound().linear_scan(x, log_a, h0, reset, None, kernel)
        return found
    y, h = sound().linear_scan(x, log_a, None if h0 is None else h0[:1], reset, None, kernel)
    return y, np.repeat(h, len(starts) - 1, axis=0)
