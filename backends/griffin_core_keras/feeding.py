"""The library's resumable batches as ``fit`` takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from griffin_core.errors import InputError
from griffin_core.shapes import Array

_KEPT = 1024
"""Places that are remembered: engines fetch a few batches ahead of the one that is trained on."""


class Resumable(Protocol):
    """An endless stream of batches, such as ``griffin_core.training.data.Batches``."""

    def __next__(self) -> Mapping[str, Array]:
        """tokens, targets and positions, int32 [b t]."""

    def get_state(self) -> dict[str, Any]:
        """The place in the stream, JSON-able."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from that place."""


class FitBatches:
    """Batches for ``fit(feed.stream(), steps_per_epoch=...)``, with the place of those that were trained on.

    Engines fetch ahead, so the stream's own place is not where training is; this class remembers the place after
    each batch.

    Args:
        batches: the stream.
    """

    def __init__(self, batches: Resumable) -> None:
        self._batches = batches
        self._first, self._places = 0, [batches.get_state()]

    def stream(self) -> Iterator[tuple[dict[str, Array], Array]]:
        """({"tokens", "positions"}, targets) without an end; a new one starts where the last one was asked to."""
        while True:
            batch = next(self._batches)
            self._places.append(self._batches.get_state())
            if len(self._places) > _KEPT:
                self._places.pop(0)
                self._first += 1
            yield {"tokens": batch["tokens"], "positions": batch["positions"]}, batch["targets"]

    def place_after(self, count: int) -> dict[str, Any]:
        """The stream's place after ``count`` batches since the beginning or the last ``go_on``.

        Raises:
            InputError: so many were not handed out, or it is too long ago.
        """
        last = self._first + len(self._places) - 1
        if not self._first <= count <= last:
            raise InputError(f"the place after batch {count} is not known; known are {self._first}..{last}")
        return self._places[count - self._first]

    def go_on(self, place: dict[str, Any]) -> None:
        """Continue from a place; counting begins anew."""
        self._batches.set_state(place)
        self._first, self._places = 0, [place]
