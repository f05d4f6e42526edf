"""The properties that operations and kernels are judged by, one function each.

A property gets a ``Trial`` and raises ``AssertionError`` when it does not hold. Its docstring's first line is what
reports say it means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from griffin_core.testing.cases import CORNERS, LONG, SHORT_CORNERS, WIDE, Case
from griffin_core.testing.operations import Operation
from griffin_core.testing.properties import gradients, isolation, sequences, values
from griffin_core.testing.trial import Trial

PACKED, GRADIENT = "packed", "gradient"


@dataclass(frozen=True)
class Property:
    """A property and where it applies.

    Attributes:
        check: the function.
        applies: whether it says anything about an operation.
        needs: "packed" or "gradient": what the judged thing must be able to do.
        cases: tried first, before any is drawn.
        drawn: share of the profile's draws.
        long: whether lengths beside large block sizes are drawn.
    """

    check: Callable[[Trial], None]
    applies: Callable[[Operation], bool] = lambda op: True
    needs: str = ""
    cases: tuple[Case, ...] = SHORT_CORNERS
    drawn: float = 1.0
    long: bool = False

    @property
    def name(self) -> str:
        """The function's name."""
        return self.check.__name__

    @property
    def about(self) -> str:
        """What it says, in a line."""
        return (self.check.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _scans(op: Operation) -> bool:
    return op.scans


def _linear(op: Operation) -> bool:
    return op.name == "linear_scan"


def _recurrent(op: Operation) -> bool:
    return op.name != "local_attention"


def _padded(op: Operation) -> bool:
    return op.marks == "positions"


_LONG = tuple(replace(LONG, dtype=dtype) for dtype in ("float32", "bfloat16"))

PROPERTIES: tuple[Property, ...] = (
    Property(values.reference, cases=CORNERS, drawn=2.0, long=True),
    Property(values.form),
    Property(values.long, _scans, cases=_LONG, drawn=0.0),
    Property(values.wide, _recurrent, cases=(WIDE,), drawn=0.0),
    Property(values.empty, _recurrent, drawn=0.0),
    Property(values.linear, _linear),
    Property(sequences.cut, cases=CORNERS, long=True),
    Property(sequences.steps),
    Property(sequences.causal),
    Property(sequences.reset, cases=CORNERS),
    Property(sequences.fresh),
    Property(sequences.documents),
    Property(sequences.padding, _padded),
    Property(sequences.packed, _recurrent, needs=PACKED),
    Property(isolation.rows),
    Property(isolation.channels, _recurrent),
    Property(values.inputs, drawn=0.5),
    Property(values.reach, drawn=0.5),
    Property(values.layout, drawn=0.5),
    Property(values.repeat, drawn=0.5),
    Property(gradients.gradient, needs=GRADIENT, cases=CORNERS, drawn=2.0, long=True),
)
BY_NAME = {item.name: item for item in PROPERTIES}
