"""Where a public implementation is wrong: the peer, the case, the tokens, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from golden_cases import WINDOW, Case

from griffin_core.shapes import Array


@dataclass(frozen=True)
class Fault:
    """A known fault.

    Attributes:
        peer: golden file.
        output: array in it.
        reason: what the peer does wrong.
        tokens: the tokens that may differ, bool [b t]; every other real token must agree.
    """

    peer: str
    output: str
    reason: str
    tokens: Callable[[Case], Array]


def _columns(first: int) -> Callable[[Case], Array]:
    return lambda case: np.arange(case.tokens.shape[1])[None, :] >= np.full((len(case.tokens), 1), first)


def _after_first_document(case: Case) -> Array:
    return np.cumsum(case.positions == 0, axis=1) > 1


def _padded_rows(case: Case) -> Array:
    return np.broadcast_to((case.positions < 0).any(axis=1, keepdims=True), case.positions.shape)


def _short_last_document(case: Case) -> Array:
    """Decoded tokens of rows whose prompt ends with a document shorter than the conv's memory of 3."""
    prompt = case.pieces[0]
    short = case.positions[:, prompt - 1 : prompt] + 1 < 3
    return short & (np.arange(case.positions.shape[1])[None, :] >= prompt)


FAULTS: tuple[Fault, ...] = (
    Fault(
        "official-jax",
        "packed_decode",
        "its conv state after a prompt holds inputs from before the last document's start",
        _short_last_document,
    ),
    Fault(
        "official-jax",
        "padded_decode",
        "its conv state after a prompt holds inputs at padding",
        _short_last_document,
    ),
    Fault(
        "transformers",
        "beyond_window_minus_1",
        "the Hub's window number, read as transformers reads it, is one key fewer than the weights were trained with",
        _columns(WINDOW - 1),
    ),
    Fault(
        "transformers",
        "packed",
        "position_ids separate the attention and reset the recurrence, but its conv reads the document before",
        _after_first_document,
    ),
    Fault(
        "transformers",
        "padded",
        "its conv reads what the padding made of the blocks below",
        _padded_rows,
    ),
    Fault(
        "transformers",
        "padded_decode",
        "its conv reads what the padding made of the blocks below",
        _padded_rows,
    ),
    Fault(
        "transformers",
        "chunked",
        "a second call with several tokens overwrites the conv state instead of using it",
        _columns(12),
    ),
    Fault(
        "transformers-4",
        "beyond",
        "a pass without a cache attends to every earlier token: there is no window",
        _columns(WINDOW),
    ),
)
