"""Where the parameters stand in a format with names and orientations of its own, and how they turn on the way.

Axis letters are those of ``griffin_core.shapes``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import param_table
from griffin_core.shapes import Array


@dataclass(frozen=True)
class Transform:
    """A change of axes that is a view, and its inverse.

    Attributes:
        name, back_name: what plans print for the two directions.
        there: canonical array to stored array.
        back: stored array to canonical array.
    """

    name: str
    back_name: str
    there: Callable[[Array], Array]
    back: Callable[[Array], Array]


SAME = Transform("none", "none", lambda x: x, lambda x: x)
TRANSPOSE = Transform("transpose", "transpose", lambda x: x.T, lambda x: x.T)


@dataclass(frozen=True)
class Place:
    """Where one canonical parameter stands: a whole stored tensor, or a half of a stacked pair.

    Attributes:
        canonical: its canonical name.
        stored: name of the tensor in the format.
        transform: how its axes turn.
        half: which half of the tensor it is; None is all of it.
    """

    canonical: str
    stored: str
    transform: Transform = SAME
    half: int | None = None

    def shape(self, canonical: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the stored tensor, from the canonical parameter's."""
        part = self.transform.there(np.broadcast_to(np.zeros(()), canonical)).shape
        return part if self.half is None else (2, *part)

    def take(self, stored: Array) -> Array:
        """The canonical parameter as a view of the stored tensor."""
        return self.transform.back(stored if self.half is None else stored[self.half])


class Layout(Protocol):
    """Names and orientations of one format."""

    def place_of(self, canonical: str) -> Place:
        """Where one parameter stands, by its whole canonical name.

        Raises:
            ConfigError: the format has no place for it.
        """

    def owns(self, stored: str) -> bool:
        """Whether a tensor of that name is the model's; others may be in the file for other ends."""


def places(config: GriffinConfig, layout: Layout) -> tuple[Place, ...]:
    """The place of every parameter, in canonical order; the halves of a pair follow each other's index.

    Raises:
        ConfigError: the format has no place for one.
    """
    return tuple(layout.place_of(row.name) for row in param_table(config))


def stored_table(config: GriffinConfig, layout: Layout) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a checkpoint in the format, in canonical order.

    Raises:
        ConfigError: as in ``places``.
    """
    rows = ((layout.place_of(row.name), row.shape) for row in param_table(config))
    return {place.stored: place.shape(shape) for place, shape in rows}
