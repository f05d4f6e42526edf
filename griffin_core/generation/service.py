"""Generation for a model and its tokenizer: what ``Model.generate``, ``Model.stream`` and the command line call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.generation.engine import Engine
from griffin_core.generation.run import Generation, Run, check_count
from griffin_core.generation.session import Session
from griffin_core.generation.stops import Stops
from griffin_core.sampling import Sampling
from griffin_core.text.stream import StreamDecoder
from griffin_core.text.tokenizer import Tokenizer

MAX_NEW_TOKENS = 128
"""New tokens of each row when nothing is said."""

Prompt = str | Sequence[int]
Prompts = Prompt | Sequence[str] | Sequence[Sequence[int]]

_CONTEXT = 16
"""Tokens before a text that decide how its first token reads: a leading space, an unfinished character."""


class LanguageModel(Protocol):
    """What generation needs of a model; ``griffin_core.model.Model`` has it."""

    @property
    def config(self) -> GriffinConfig:
        """The architecture."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer, or None: then prompts are token ids and texts stay empty."""

    def engine(self) -> Engine:
        """The model on its backend."""


def generate(model: LanguageModel, prompts: Prompts | None, **options: Any) -> list[Generation]:
    """Generate for one prompt or a batch; the options are those of ``begin``.

    Returns:
        One record per prompt, in order.
    """
    return begin(model, prompts, **options).finish().results


def stream(model: LanguageModel, prompt: Prompt | None, **options: Any) -> Iterator[str]:
    """The text for one prompt, piece by piece; the options are those of ``begin``.

    The first piece comes after the prompt was read. No piece ends inside a character, none is ever taken back.

    Raises:
        InputError: more than one prompt.
    """
    run = begin(model, prompt, lively=True, **options)
    if run.rows != 1:
        raise InputError(f"{run.rows} prompts cannot be streamed as one text; use generate, or stream each")
    return (pieces[0] for pieces in run if pieces[0])


def begin(
    model: LanguageModel,
    prompts: Prompts | None,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    sampling: Sampling | None = None,
    stop: str | Sequence[str] = (),
    stop_ids: int | Sequence[int] | None = None,
    session: Session | None = None,
    keep_state: bool = True,
    lively: bool = False,
) -> Run:
    """Read the prompts and stand ready to generate.

    Args:
        prompts: a text, token ids, or a list of either. A text starts with the tokenizer's bos token, as the
            documents of training do; token ids are taken as they are. None continues a session as it stands.
        max_new_tokens: new tokens of each row at most; 0 is legal.
        sampling: how tokens are chosen; None is ``Sampling()``. Row r uses the seed ``sampling.seed + r``.
        stop: strings that end a row; they are not part of its text.
        stop_ids: tokens that end a row; None is the tokenizer's eos token if it has one.
        session: where to continue; the prompts, without bos, are read after what it holds.
        keep_state: rewind the state of a row that stops early; False saves that work when nobody continues.
        lively: keep pieces short enough to be watched.

    Raises:
        InputError: a prompt of zero tokens, an id outside the vocabulary, text without a tokenizer, a stop
            that cannot occur, a negative count.
    """
    check_count(max_new_tokens)
    tokenizer = model.tokenizer
    if stop_ids is None:
        stop_ids = () if tokenizer is None or tokenizer.eos_id is None else (tokenizer.eos_id,)
    stops = Stops.of(model.config, stop, stop_ids)
    if session is None:
        rows = [encode_prompt(tokenizer, prompt) for prompt in as_list(prompts)]
        session = Session.start(model.engine(), rows, max_new_tokens)
    elif prompts is not None:
        rows = [encode_prompt(tokenizer, prompt, bos=False) for prompt in as_list(prompts)]
        session = session.feed(rows, max_new_tokens)
    decoders = None if tokenizer is None else [_primed(tokenizer, history) for history in session.histories]
    return Run(session, sampling or Sampling(), max_new_tokens, stops, decoders, lively, keep_state)


def as_list(prompts: Prompts | None) -> list[Prompt]:
    """One prompt or several as a list.

    Raises:
        InputError: it is neither text, nor token ids, nor a list of them.
    """
    if isinstance(prompts, np.ndarray):
        prompts = prompts.tolist()
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Sequence):
        raise InputError(f"prompt is a {type(prompts).__name__}; expected text, token ids, or a list of either")
    if prompts and not isinstance(prompts[0], str | Sequence | np.ndarray):
        return [prompts]  # type: ignore[list-item]  # a list of ids
    return list(prompts)  # type: ignore[arg-type]


def encode_prompt(tokenizer: Tokenizer | None, prompt: Prompt, bos: bool = True) -> list[int]:
    """Token ids of one prompt.

    Args:
        bos: start a text with the tokenizer's bos token, if it has one and the text does not name it.

    Raises:
        InputError: the text gives zero tokens (bos not counted), or there is no tokenizer to read it.
    """
    if not isinstance(prompt, str):
        ids = list(prompt)
    elif tokenizer is None:
        raise InputError("this model has no tokenizer; give token ids instead of text")
    else:
        ids = tokenizer.encode(prompt)
    if not ids:
        raise InputError("a prompt has zero tokens; give at least one character, or token ids such as [bos]")
    if isinstance(prompt, str) and tokenizer is not None and bos and tokenizer.bos_id not in (None, ids[0]):
        ids = [int(tokenizer.bos_id or 0), *ids]
    return ids


def _primed(tokenizer: Tokenizer, history: Sequence[int]) -> StreamDecoder:
    """A text stream that has read the end of the history, so that the new text joins it without a seam."""
    decoder = tokenizer.stream()
    decoder.push(history[-_CONTEXT:])
    return decoder
