"""A call's tensors as the kernels take them: channels side by side, marks and sequences as small integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One call of a recurrence.

    Attributes:
        cell: "gated", "approx" or "linear" (``device.cells``).
        x, y, z: [b t d] each with channels side by side; y is x for "linear".
        param: [d], or x.
        h0: float32 [rows d] or None.
        marks: int32 positions [b t], uint8 resets [b t], or x.
        kind: how ``marks`` is meant: "positions", "reset", "start", "none".
        begins, ends: int32 [t] of packed sequences, or None.
        sequences: rows of the states.
        slots: int32 [b], the rows of ``h0`` and of the last state that are meant, or None.
    """

    cell: str
    x: Tensor
    y: Tensor
    z: Tensor
    param: Tensor
    h0: Tensor | None
    marks: Tensor
    kind: str
    begins: Tensor | None
    ends: Tensor | None
    sequences: int
    slots: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(b, t, d)."""
        return self.x.shape[0], self.x.shape[1], self.x.shape[2]

    @property
    def marked(self) -> bool:
        """Whether documents may start at any token."""
        return self.kind in ("positions", "reset") or self.begins is not None

    def constants(self) -> dict[str, Any]:
        """What every kernel is compiled for."""
        return {
            "MARKS": self.kind,
            "PACKED": self.begins is not None,
            "HAS_H0": self.h0 is not None,
            "CELL": self.cell,
        }

    def arrays(self) -> dict[str, Tensor]:
        """What every kernel reads; an absent array is any other, and not read."""
        none = self.x
        return {
            "x": self.x,
            "y": self.y,
            "z": self.z,
            "param": self.param,
            "h0": none if self.h0 is None else self.h0,
            "marks": self.marks,
            "begins": none if self.begins is None else self.begins,
            "ends": none if self.ends is None else self.ends,
        }

    def strides(self) -> dict[str, int]:
        """Elements between rows of the batch, and between tokens, of the inputs."""
        named = {"x": self.x, "y": self.y, "z": self.z}
        batch = {f"{name}_batch": value.stride(0) for name, value in named.items()}
        return batch | {f"{name}_time": value.stride(1) for name, value in named.items()}


def make_call(
    cell: str,
    x: Tensor,
    y: Tensor | None,
    z: Tensor,
    param: Tensor | None,
    h0: Tensor | None,
    marks: Tensor | None,
    starts: Tensor | None,
    slots: Tensor | None = None,
) -> Call:
    """Bring the arguments of an operation into the form of a ``Call``.

    Args:
        marks: positions int [b t], for "linear" resets bool [b t], or None.
        starts: int [n+1] of packed sequences, or None.
    """
    x, z = side_by_side(x), side_by_side(z)
    kind = "none" if cell == "linear" or h0 is not None else "start"
    if marks is not None:
        kind = "reset" if cell == "linear" else "positions"
        marks = marks.to(torch.uint8 if cell == "linear" else torch.int32).contiguous()
    begins, ends = (None, None) if starts is None else edges(starts, x.shape[1])
    return Call(
        cell=cell,
        x=x,
        y=x if y is None else side_by_side(y),
        z=z,
        param=x if param is None else param.contiguous(),
        h0=None if h0 is None else h0.to(torch.float32).contiguous(),
        marks=x if marks is None else marks,
        kind=kind,
        begins=begins,
        ends=ends,
        sequences=x.shape[0] if starts is None else len(starts) - 1,
        slots=slots,
    )


def side_by_side(x: Tensor) -> Tensor:
    """x [b t d], or a copy of it, with channels next to each other and tokens that do not overlap."""
    return x if x.stride(2) == 1 and x.stride(1) >= x.shape[2] else x.contiguous()


def edges(starts: Tensor | Sequence[int], time: int) -> tuple[Tensor, Tensor]:
    """int32 [t] each: the sequence that begins, and the one that ends, at a token; -1 where none does.

    Computed on the device of ``starts``, without waiting for it. Sequences without tokens appear in neither.
    """
    cuts = torch.as_tensor(starts).to(torch.int64)
    numbers = torch.arange(len(cuts) - 1, dtype=torch.int32, device=cuts.device)
    empty = cuts[1:] == cuts[:-1]
    found = []
    for places in (cuts[:-1], cuts[1:] - 1):
        edge = torch.full((time + 1,), -1, dtype=torch.int32, device=cuts.device)
        found.append(edge.scatter_(0, places.masked_fill(empty, time), numbers)[:time])
    return found[0], found[1]
