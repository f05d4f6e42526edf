"""How well a model predicts a given text, in pieces: memory does not grow with the text's length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from griffin_core.errors import InputError
from griffin_core.shapes import Array

if TYPE_CHECKING:
    from griffin_core.model import Model

PIECE = 256
"""Tokens whose logits are held at once."""


@dataclass(frozen=True)
class Score:
    """The verdict on one text.

    Attributes:
        tokens: tokens that were scored.
        nats: their summed negative log-probability.
        bits_per_byte: the same in bits, per UTF-8 byte of the text.
        perplexity: exp of the mean per token.
        logprobs: float64 [tokens], log-probability of each.
    """

    tokens: int
    nats: float
    bits_per_byte: float
    perplexity: float
    logprobs: Array = field(repr=False)


def score(model: Model, text: str) -> Score:
    """Score a text as one document: after the bos token if the tokenizer has one, else from its second token on.

    Raises:
        InputError: there is no tokenizer, or nothing to score.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise InputError("this model has no tokenizer to read text with; griffin_core.scoring.token_logprobs takes ids")
    ids = tokenizer.encode(text, special=False)
    if tokenizer.bos_id is not None:
        ids = [tokenizer.bos_id, *ids]
    logprobs = token_logprobs(model, ids)
    nats = -float(logprobs.sum())
    bits = nats / math.log(2.0) / len(text.encode())
    return Score(len(logprobs), nats, bits, math.exp(nats / len(logprobs)), logprobs)


def token_logprobs(model: Model, ids: Sequence[int]) -> Array:
    """Log-probability of each token after the first, given those before it.

    Returns:
        float64 [n - 1] for n ids.

    Raises:
        InputError: fewer than two ids, or one outside the vocabulary.
    """
    if len(ids) < 2:
        raise InputError(f"{len(ids)} tokens leave nothing to score; give at least two")
    state = model.init_state(1, capacity=len(ids) if model.config.has_global_attention else None)
    found = []
    for start in range(0, len(ids) - 1, PIECE):
        stop = min(start + PIECE, len(ids) - 1)
        logits, state = model.forward([ids[start:stop]], state=state)
        found.append(_log_softmax_at(logits[0], np.asarray(ids[start + 1 : stop + 1])))
    return np.concatenate(found)


def _log_softmax_at(logits: Array, targets: Array) -> Array:
    """float64 [t]: log-softmax of logits [t v] at targets [t]."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=-1)
    total = top + np.log(np.exp(wide - top[:, None]).sum(axis=-1))
    return np.asarray(wide[np.arange(len(targets)), targets] - total)
