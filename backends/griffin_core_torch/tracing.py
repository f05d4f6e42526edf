"""What compiled code asks once, while it is traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def settled_when_traced(function: F) -> F:
    """``torch.compiler.assume_constant_result``, which loads the compiler (seconds) for the sake of this mark."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
