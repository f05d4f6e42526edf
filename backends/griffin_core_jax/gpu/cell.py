"""What the kernels compute, row by row: the interface of ``linear_cell`` and ``gated_cell``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

Row = Array
"""[width] of one token; values that are read from memory have their own dtype, the others are float32."""


class Entry(NamedTuple):
    """What one token does to the state: h = a h + u, or h = fresh where a document starts.

    Attributes:
        a: the decay.
        u: what enters.
        fresh: what enters at a reset.
        kept: what the gradients need of it beside ``a``.
    """

    a: Row
    u: Row
    fresh: Row
    kept: Any = None


class Cell(NamedTuple):
    """A recurrence.

    Attributes:
        operation: its name in ``plan.WORK``.
        neutral: for each input [b t d] the value that leaves the state alone; it stands after the end of time.
        decay_at: index of the input that the decay alone is computed from.
        log_scale: what a sum of ``log`` is multiplied with to be a natural logarithm.
        per_channel: whether ``rate`` [d] goes with the inputs, and its gradient is asked for.
        log: (value of input ``decay_at``, rate) -> log a, to any base.
        decay: log a as ``log`` gives it -> a.
        enter: (values, rate) -> Entry.
        gradients: (entry, values, g, state before, reset or None) -> (gradient of each input, that of rate or None).
    """

    operation: str
    neutral: tuple[float, ...]
    decay_at: int
    log_scale: float
    per_channel: bool
    log: Callable[[Row, Any], Row]
    decay: Callable[[Row], Row]
    enter: Callable[[tuple[Row, ...], Any], Entry]
    gradients: Callable[..., tuple[tuple[Row, ...], Row | None]]
