"""Documents as token pairs: input token, target token, and where the loss counts.

A document is read as ``<bos> prompt text <eos>`` (specials that the tokenizer lacks are left out). Its pairs
are (token, next token), so every token of the text and the final ``<eos>`` is predicted exactly once, also
when the document is cut: a later piece starts with the last target of the piece before it as its first input,
at position 0, because no state crosses rows. Targets inside the prompt are -1: no loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from griffin_core.errors import InputError
from griffin_core.shapes import Array
from griffin_core.text.files import Document
from griffin_core.text.tokenizer import Tokenizer

NO_LOSS = -1
"""Target that carries no loss."""


@dataclass(frozen=True)
class Examples:
    """Every document's pairs in flat arrays.

    Attributes:
        tokens: the documents' tokens end to end, uint16 or uint32.
        starts: int64 [n+1], where each document's tokens start.
        masked: int64 [n], how many of a document's first pairs carry no loss.
        text_bytes: UTF-8 bytes of the texts, prompts left out: what bits per byte are counted over.
    """

    tokens: Array
    starts: Array
    masked: Array
    text_bytes: int

    def __len__(self) -> int:
        return len(self.masked)

    @property
    def token_count(self) -> int:
        """Targets that carry loss."""
        return int((np.diff(self.starts) - 1 - self.masked).sum())

    def pairs(self, index: int) -> int:
        """Number of pairs of one document."""
        return int(self.starts[index + 1] - self.starts[index]) - 1

    def piece(self, index: int, start: int, stop: int) -> dict[str, Array]:
        """Pairs ``start`` to ``stop`` of one document: int32 arrays tokens, targets, positions of equal length."""
        first = int(self.starts[index])
        stop = min(stop, self.pairs(index))
        tokens = self.tokens[first + start : first + stop + 1].astype(np.int32)
        targets = tokens[1:].copy()
        targets[: max(0, int(self.masked[index]) - start)] = NO_LOSS
        return {"tokens": tokens[:-1], "targets": targets, "positions": np.arange(stop - start, dtype=np.int32)}


def tokenise(documents: Iterable[Document], tokenizer: Tokenizer) -> Examples:
    """The documents' tokens.

    Raises:
        InputError: no document has a token to learn.
    """
    rows: list[Array] = []
    masked: list[int] = []
    text_bytes = 0
    head = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    tail = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    for document in documents:
        prompt = tokenizer.encode(document.prompt, special=document.special)
        text = tokenizer.encode(document.text, special=document.special)
        row = np.array([*head, *prompt, *text, *tail], dtype)
        silent = max(0, len(head) + len(prompt) - 1)
        if len(row) - 1 > silent:
            rows.append(row)
            masked.append(silent)
            text_bytes += document.text_bytes
    if not rows:
        raise InputError("no document has a token to learn; give more text")
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Examples(np.concatenate(rows), starts, np.array(masked, np.int64), text_bytes)
