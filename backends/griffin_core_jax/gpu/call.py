"""The arrays of one call, and how a kernel finds them among its references."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from griffin_core_jax.gpu.cell import Cell


class Given(NamedTuple):
    """References of a kernel: the inputs, the rate and the marks (None where there are none), and all others."""

    inputs: tuple[Any, ...]
    rate: Any
    marks: Any
    others: tuple[Any, ...]


class Call(NamedTuple):
    """What a kernel runs on.

    Attributes:
        cell: what to compute.
        inputs: [b t d] each, as the cell names them.
        rate: float32 [d], or None where the cell has none.
        marks: int32 [b t] from ``rows.pack_marks``, or None.
    """

    cell: Cell
    inputs: tuple[jax.Array, ...]
    rate: jax.Array | None
    marks: jax.Array | None

    @property
    def shape(self) -> tuple[int, ...]:
        """(b, t, d)."""
        return tuple(self.inputs[0].shape)

    def arrays(self) -> list[jax.Array]:
        """What every kernel reads, in the order that ``unpack`` expects."""
        rate = [] if self.rate is None else [self.rate]
        return [*self.inputs, *rate, *([] if self.marks is None else [self.marks])]

    def unpack(self, refs: tuple[Any, ...]) -> Given:
        """A kernel's references by what they are."""
        count = len(self.inputs)
        inputs, refs = refs[:count], refs[count:]
        rate, refs = (None, refs) if self.rate is None else (refs[0], refs[1:])
        marks, refs = (None, refs) if self.marks is None else (refs[0], refs[1:])
        return Given(inputs, rate, marks, refs)
