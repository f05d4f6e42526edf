"""How many tokens to ask the backend for at once."""

from __future__ import annotations

LONGEST = 64
"""Tokens of the longest piece. The sizes are powers of two: a compiling backend meets at most seven."""
LIVELY_SECONDS = 0.15
"""A streamed piece should not take longer than this to appear."""


class Pace:
    """Pieces of 1, 2, 4, ... 64 tokens.

    They grow so that a text that ends early wastes at most as many tokens as it has, while the overhead of
    a call vanishes in a long one. The piece sizes change no token and no text.

    Args:
        lively: stop growing, and shrink, when a piece takes longer than ``LIVELY_SECONDS``.
    """

    def __init__(self, lively: bool) -> None:
        self._lively = lively
        self._size = 1

    def next(self, wanted: int) -> int:
        """The size of the next piece: a power of two, at most ``wanted``."""
        return min(self._size, 1 << (wanted.bit_length() - 1))

    def took(self, tokens: int, seconds: float) -> None:
        """Learn how long a piece of ``tokens`` tokens took."""
        slowest = LIVELY_SECONDS if self._lively else float("inf")
        per_token = seconds / tokens
        if 2 * self._size * per_token <= slowest:
            self._size = min(2 * self._size, LONGEST)
        elif self._size * per_token > slowest:
            self._size = max(self._size // 2, 1)
