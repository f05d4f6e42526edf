"""Many tokens, one after another: a program for one token, and the reference's own sampler on the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from griffin_core import registry
from griffin_core.checks import PAD, check_capacity, check_tokens
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.layouts.params import EMBEDDING, LM_HEAD
from griffin_core.layouts.states import POSITION, state_capacity
from griffin_core.reference.sampling import sample
from griffin_core.sampling import SamplingRows
from griffin_core_keras.dtypes import as_dtype
from griffin_core_keras.engine import engine
from griffin_core_keras.model import FlatSource, cap_logits, run_hidden


def decode(
    config: GriffinConfig,
    params: Mapping[str, Any],
    state: Mapping[str, Any],
    token: Any,
    n: int,
    sampling: SamplingRows,
    active: Any | None = None,
    kernel: str | None = None,
    compute_dtype: str | None = None,
) -> tuple[Any, Any, dict[str, Any]]:
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
    position, ids = engine.to_numpy(state[POSITION]), np.asarray(token)
    live = np.ones(len(position), bool) if active is None else np.asarray(active, bool)
    if n < 0 or ids.shape != position.shape:
        raise InputError(
            f"decode of n={n} tokens after token of shape {ids.shape}; expected n >= 0 and {position.shape}"
        )
    check_tokens(config, ids[:, None], np.where(live, position, PAD)[:, None])
    if config.has_global_attention:
        capacity = state_capacity(config, {name: tuple(value.shape) for name, value in state.items()})
        check_capacity(capacity, np.where(live, position + n, position))
    dtype = as_dtype(compute_dtype, engine.dtype_name(params[EMBEDDING]))
    step = _program(config, registry.requested_kernel(kernel), registry.kernels("keras"), dtype)
    tokens, logprobs = np.full((len(ids), n), -1, np.int32), np.zeros((len(ids), n), np.float32)
    weights, after = dict(params), dict(state)
    for index in range(n if live.any() else 0):
        where = np.where(live, position, PAD).astype(np.int32)[:, None]
        scores, after = step(weights, engine.from_numpy(ids.astype(np.int32)[:, None]), engine.from_numpy(where), after)
        position = np.where(live, position + 1, position)
        ids, logprob = sample(engine.to_numpy(scores), sampling, position)
        sampling = sampling.push(ids, live)
        tokens[:, index], logprobs[:, index] = np.where(live, ids, -1), np.where(live, logprob, 0.0)
    return engine.from_numpy(tokens), engine.from_numpy(logprobs), after


@functools.lru_cache(maxsize=16)
def _program(config: GriffinConfig, kernel: str, kernels: tuple[Any, ...], dtype: str) -> Callable[..., Any]:
    """(logits [b v], state) of one token a row, compiled where the engine compiles."""

    def step(params: Any, tokens: Any, positions: Any, state: Any) -> tuple[Any, Any]:
        x, after = run_hidden(config, FlatSource(params, dtype), tokens, positions, state, "right", kernel)
        head = params[EMBEDDING if config.tie_embeddings else LM_HEAD]
        return cap_logits(config, engine.project(ops.cast(x, dtype), head))[:, 0], after

    return engine.compiled(step)  # type: ignore[no-any-return]
