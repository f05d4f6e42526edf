"""What ends a text early, and how much of a text a stop string could still take back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError


@dataclass(frozen=True)
class Stops:
    """Stop strings and stop ids. Neither is part of the text that is kept.

    Attributes:
        strings: a text ends before the first of them that is complete; of two that are complete at the same
            character, before the longer.
        ids: a text ends before the first of these tokens.
    """

    strings: tuple[str, ...] = ()
    ids: frozenset[int] = frozenset()

    @classmethod
    def of(cls, config: GriffinConfig, strings: str | Iterable[str] = (), ids: int | Iterable[int] = ()) -> Stops:
        """Stops checked against the vocabulary; a single string or id stands for a list of one.

        Raises:
            InputError: an empty stop string, or an id that the model cannot produce.
        """
        texts = (strings,) if isinstance(strings, str) else tuple(strings)
        numbers = (ids,) if isinstance(ids, int) else tuple(ids)
        for text in texts:
            if not isinstance(text, str) or not text:
                raise InputError(f"stop string {text!r}; expected a text of at least one character")
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < config.vocab_size:
                raise InputError(f"stop id {number!r}; expected a token id in 0..{config.vocab_size - 1}")
        return cls(texts, frozenset(numbers))

    def find(self, text: str, seen: int) -> tuple[int, str] | None:
        """The stop string that is complete first, given that none was within ``text[:seen]``.

        Returns:
            Where it begins, and which it is; None when there is none.
        """
        found = []
        for stop in self.strings:
            begin = text.find(stop, max(0, seen - len(stop) + 1))
            if begin >= 0:
                found.append((begin + len(stop), begin, stop))
        return min(found)[1:] if found else None

    def held(self, text: str) -> int:
        """Characters at the end of ``text`` that may be the beginning of a stop string."""
        longest = max(map(len, self.strings), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self.strings):
                return length
        return 0
