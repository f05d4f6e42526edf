"""Shapes of arguments, as far as they are known: a traced function may not know its batch or its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from griffin_core.arguments import check_arguments
from griffin_core.checks import expect_shape
from griffin_core.errors import InputError


class AnySize(int):
    """The length of an axis that is not known yet: equal to every other."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "None"


def check_shapes(op: str, arguments: Mapping[str, Any], starts: Sequence[int] | None = None) -> None:
    """``check_arguments`` of what is known about the arguments' shapes.

    Raises:
        InputError: as there; or x has an unknown width or number of axes.
    """
    known = {name: _known(op, name, x) for name, x in arguments.items()}
    shape = known["x"].shape
    if len(shape) == 3 and isinstance(shape[2], AnySize):
        raise InputError(f"{op}: x has shape {tuple(shape)}; expected a known width, [batch, time, width]")
    check_arguments(op, known, starts)


def check_shape(op: str, name: str, x: Any, shape: Sequence[Any]) -> None:
    """``expect_shape`` of what is known about x's shape and the one expected; None is an unknown length.

    Raises:
        InputError: they cannot be equal.
    """
    expect_shape(op, name, _known(op, name, x), tuple(AnySize() if size is None else size for size in shape))


def _known(op: str, name: str, x: Any) -> Any:
    if isinstance(x, Mapping):
        return {key: _known(op, key, value) for key, value in x.items()}
    if not hasattr(x, "shape"):
        return x
    if getattr(x.shape, "rank", 0) is None:
        raise InputError(f"{op}: {name} has an unknown number of axes; give the traced function its input's shape")
    return SimpleNamespace(shape=tuple(AnySize() if size is None else size for size in x.shape))
