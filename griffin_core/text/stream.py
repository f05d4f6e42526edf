"""Text of a growing list of ids, piece by piece, never with a broken UTF-8 sequence in it."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

REPLACEMENT = "\ufffd"
"""What stands for bytes that are no UTF-8."""

_LONGEST_HELD = 8


class StreamDecoder(Protocol):
    """Turns ids into text as they come. One decoder serves one row of a batch."""

    @property
    def pending(self) -> bool:
        """Whether an unfinished character is held back."""

    def push(self, ids: Iterable[int]) -> str:
        """The text that these further ids complete; an unfinished character is held back."""

    def finish(self) -> str:
        """What was held back; bytes that never became a character give U+FFFD."""


class ByteStream:
    """The stream of a byte-level tokenizer: an incremental UTF-8 decoder, ids above 255 without text."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def pending(self) -> bool:
        """Whether an unfinished character is held back."""
        return bool(self._decoder.getstate()[0])

    def push(self, ids: Iterable[int]) -> str:
        """The text that these further ids complete."""
        return self._decoder.decode(bytes(i for i in ids if i < 256))

    def finish(self) -> str:
        """U+FFFD if the last character is unfinished, else nothing."""
        return self._decoder.decode(b"", True)


class TextStream:
    """The stream of any tokenizer, through its ``decode``.

    A token's text may depend on the one before it (a leading space), so each step decodes the last shown
    ids again, with and without the new ones, and gives the difference.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._shown: list[int] = []
        self._held: list[int] = []

    @property
    def pending(self) -> bool:
        """Whether an unfinished character is held back."""
        return bool(self._held)

    def push(self, ids: Iterable[int]) -> str:
        """The text that these further ids complete."""
        return "".join(self._push(i) for i in ids)

    def finish(self) -> str:
        """What was held back, as it is."""
        return self._show(self._text())

    def _push(self, token: int) -> str:
        self._held.append(token)
        text = self._text()
        # An unfinished character decodes to U+FFFD. A model may also write a real U+FFFD, or bytes that
        # never become a character, so a long wait ends: no character has that many tokens.
        if text.endswith(REPLACEMENT) and len(self._held) < _LONGEST_HELD:
            return ""
        return self._show(text)

    def _text(self) -> str:
        before = self._decode(self._shown)
        return self._decode(self._shown + self._held)[len(before) :]

    def _show(self, text: str) -> str:
        if self._held:
            self._shown, self._held = self._held, []
        return text
