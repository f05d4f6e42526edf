"""The programs whose schedules are counted: each Pallas TPU kernel, direction and dtype, with and without marks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from griffin_core.errors import BackendError
from griffin_core.protocol import Kernel
from griffin_core_jax.tpu.chips import Chip
from griffin_core_jax.tpu.kernels import KERNELS
from griffin_core_jax.tpu.tiling import Tiling, tiling

SHAPE = (8, 8192, 2560)
"""RecurrentGemma-2B's width at its training length."""
DIRECTIONS = ("forward", "backward")
DTYPES = ("bfloat16", "float32")
MARKED = (False, True)


@dataclass(frozen=True)
class Program:
    """One kernel as a program to compile.

    Attributes:
        kernel: the record.
        direction: "forward" or "backward".
        dtype: of the [b t d] arrays.
        marked: whether resets (positions) are given.
        shape: (b, t, d).
    """

    kernel: Kernel
    direction: str
    dtype: str
    marked: bool
    shape: tuple[int, int, int] = SHAPE

    @property
    def key(self) -> str:
        """How tables name it, e.g. "linear_scan/pallas/forward/bfloat16/marked"."""
        parts = (self.kernel.op, self.kernel.name, self.direction, self.dtype, "marked" if self.marked else "plain")
        return "/".join(parts)

    def tiling(self, chip: Chip) -> Tiling:
        """The blocks that the kernel takes on this chip."""
        return tiling(self.kernel.op, self.direction, self.shape, self.dtype, chip)

    def build(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """(function, arguments) for ``compile_for``."""
        inputs = _inputs(self.kernel.op, self.shape, self.dtype, self.marked)
        if self.direction == "forward":
            return self.kernel.forward, inputs
        outputs = (inputs[0], _struct(self.shape[::2], "float32"))
        if self.kernel.vjp is not None:
            return self.kernel.vjp, (*inputs, *outputs, *outputs)
        return _pullback(self.kernel.forward, inputs), (*inputs, *outputs)

    def counts(self, operation_name: str) -> bool:
        """Whether a compiled operation of the program is counted: those whose ``pallas_call`` is so named.

        The calls are named "<op>_forward..." and "<op>_backward..."; JAX wraps the names of differentiated ones. Of a
        gradient that runs both only the second counts, but all of a hand-written vjp does.
        """
        whole = self.direction == "forward" or self.kernel.vjp is not None
        return (f"{self.kernel.op}_" if whole else f"{self.kernel.op}_backward") in operation_name


def programs(shape: tuple[int, int, int] = SHAPE) -> tuple[Program, ...]:
    """Every program of the table; kernels that must be asked for by name are counted in bfloat16 only."""
    first = {kernel.op: kernel for kernel in reversed(KERNELS)}
    return tuple(
        Program(kernel, direction, dtype, marked, shape)
        for kernel in KERNELS
        for direction in DIRECTIONS
        for dtype in (DTYPES if kernel is first[kernel.op] else DTYPES[:1])
        for marked in MARKED
    )


def _inputs(op: str, shape: tuple[int, int, int], dtype: str, marked: bool) -> tuple[Any, ...]:
    x, h0 = _struct(shape, dtype), _struct(shape[::2], "float32")
    if op == "linear_scan":
        return x, x, h0, _struct(shape[:2], "bool") if marked else None
    if op == "gated_scan":
        return x, x, x, _struct(shape[2:], "float32"), h0, _struct(shape[:2], "int32") if marked else None
    raise BackendError(f"no program is known for kernels of {op!r}; add its arguments to {__name__}")


def _struct(shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))


def _pullback(forward: Callable[..., Any], inputs: tuple[Any, ...]) -> Callable[..., Any]:
    """A function of (*inputs, dy, dh) that gives the gradients of the floating inputs."""
    floating = [i for i, v in enumerate(inputs) if v is not None and jnp.issubdtype(v.dtype, jnp.floating)]

    def gradients(*given: Any) -> Any:
        values, cotangents = list(given[: len(inputs)]), given[len(inputs) :]

        def scan(*chosen: Any) -> Any:
            for place, value in zip(floating, chosen, strict=True):
                values[place] = value
            return forward(*values)

        return jax.vjp(scan, *(values[i] for i in floating))[1](tuple(cotangents))

    return gradients
