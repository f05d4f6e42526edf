"""Many tokens, one after another, on the device: no logits travel, and the state is updated in a private copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from griffin_core.checks import PAD
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.layouts.states import POSITION
from griffin_core.sampling import SamplingRows
from griffin_core_torch.model import forward
from griffin_core_torch.sampling import Sampler


@torch.no_grad()
def decode(
    config: GriffinConfig,
    params: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    token: Any,
    n: int,
    sampling: SamplingRows,
    active: Any = None,
    kernel: str | None = None,
    compute_dtype: str | None = None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Consume ``token``, sample the next, and so on, n times. The last token is not consumed.

    Args:
        state: has seen everything before ``token``.
        token: int [b], the last token of each row; a tensor or an array.
        n: how many tokens to sample.
        sampling: settings, seeds and recent tokens of the rows.
        active: bool [b]; other rows keep their state, and get tokens -1 and log probabilities 0.
        kernel: name of a kernel for the recurrent operations, or None.
        compute_dtype: dtype of the products; None is that of the embedding.

    Returns:
        (tokens int32 [b n], logprobs float32 [b n] by the model's own softmax, state).

    Raises:
        InputError: n is negative, or ``token`` does not have one id for each row.
    """
    device, batch = state[POSITION].device, len(state[POSITION])
    token = torch.as_tensor(token).to(device, torch.int64)
    if n < 0 or tuple(token.shape) != (batch,):
        raise InputError(f"decode of n={n} after token of shape {tuple(token.shape)}; expected n >= 0 and ({batch},)")
    live = None if active is None else torch.as_tensor(active).to(device, torch.bool)
    if live is not None and bool(live.all()):
        live = None
    sampler = Sampler(sampling, device)
    tokens = torch.full((batch, n), -1, dtype=torch.int32, device=device)
    logprobs = torch.zeros(batch, n, device=device)
    after = {name: value.clone() for name, value in state.items()}
    for i in range(n):
        positions = after[POSITION] if live is None else torch.where(live, after[POSITION], PAD)
        scores, new = forward(config, params, token[:, None], positions[:, None], after, "right", kernel, compute_dtype)
        after, scores = new or after, scores[:, 0]
        chosen = sampler(scores, after[POSITION])
        logprob = scores.gather(1, chosen[:, None])[:, 0] - scores.logsumexp(dim=1)
        sampler.push(chosen, live)
        token = chosen if live is None else torch.where(live, chosen, token)
        tokens[:, i] = chosen if live is None else torch.where(live, chosen, -1)
        logprobs[:, i] = logprob if live is None else torch.where(live, logprob, 0.0)
    return tokens, logprobs, after
