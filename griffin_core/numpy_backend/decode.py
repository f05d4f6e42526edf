"""Many tokens, one after another, with the reference's sampler."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from griffin_core.checks import PAD
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.layouts.params import EMBEDDING
from griffin_core.layouts.states import POSITION
from griffin_core.numpy_backend.model import forward
from griffin_core.reference.numeric import wide
from griffin_core.reference.sampling import sample
from griffin_core.sampling import SamplingRows
from griffin_core.shapes import Array


def decode(
    config: GriffinConfig,
    params: Mapping[str, Array],
    state: Mapping[str, Array],
    token: Array,
    n: int,
    sampling: SamplingRows,
    active: Array | None = None,
    kernel: str | None = None,
    compute_dtype: str | None = None,
) -> tuple[Array, Array, dict[str, Array]]:
    """Consume ``token``, sample the next, and so on, n times. The last token is not consumed.

    Args:
        state: has seen everything before ``token``.
        token: int [b], the last token of each row.
        n: how many tokens to sample.
        sampling: settings, seeds and recent tokens of the rows.
        active: bool [b]; other rows keep their state, and get tokens -1 and log probabilities 0.

    Returns:
        (tokens int32 [b n], logprobs float32 [b n] by the model's own softmax, state).

    Raises:
        InputError: n is negative, or ``token`` does not have one id for each row.
    """
    token = np.asarray(token, np.int32)
    batch = len(state[POSITION])
    if n < 0 or token.shape != (batch,):
        raise InputError(f"decode of n={n} tokens after token of shape {token.shape}; expected n >= 0 and ({batch},)")
    live = np.ones(batch, bool) if active is None else np.asarray(active, bool)
    compute = compute_dtype or params[EMBEDDING].dtype.name
    params = {name: wide(value) for name, value in params.items()}
    tokens = np.full((batch, n), -1, np.int32)
    logprobs = np.zeros((batch, n), np.float32)
    after = {name: np.array(value) for name, value in state.items()}
    for i in range(n):
        positions = np.where(live, after[POSITION], PAD)[:, None]
        scores, new = forward(config, params, token[:, None], positions, after, "right", kernel, compute)
        after = new or after
        token, logprob = sample(scores[:, 0], sampling, after[POSITION])
        sampling = sampling.push(token, live)
        tokens[:, i] = np.where(live, token, -1)
        logprobs[:, i] = np.where(live, logprob, 0.0)
    return tokens, logprobs, after
