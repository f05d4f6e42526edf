"""Arrays in and out of PyTorch, dtypes, and the gradient hook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from griffin_core.errors import ConfigError, nearest
from griffin_core.shapes import Array
from griffin_core_torch.devices import made_on

DTYPES: dict[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""PyTorch's floating dtypes by the name used everywhere."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def as_dtype(dtype: str | torch.dtype | None, default: torch.dtype | None = None) -> torch.dtype | None:
    """The PyTorch dtype of that name; None gives ``default``.

    Raises:
        ConfigError: the name is not one of ``DTYPES``.
    """
    if dtype is None or isinstance(dtype, torch.dtype):
        return default if dtype is None else dtype
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; {nearest(dtype, DTYPES)}")
    return DTYPES[dtype]


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a PyTorch dtype: "float32", "int32", ..."""
    return _NAMES.get(dtype) or str(dtype).removeprefix("torch.")


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums and recurrences run in: float32, or float64 for float64 inputs."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def cache_blocks(x: Tensor, rows: int) -> Sequence[Tensor]:
    """x in blocks of ``rows``, which stay in a processor's cache; on a GPU and in compiled code, x in one piece."""
    return x.split(max(1, rows)) if x.device.type == "cpu" and not torch.compiler.is_compiling() else (x,)


def from_numpy(x: Array, dtype: str | None = None, device: str | None = None) -> Tensor:
    """A tensor with a copy of ``x``.

    Args:
        x: any NumPy array; bfloat16 is that of ml_dtypes.
        dtype: a name of ``DTYPES``, or None to keep the array's.
        device: a PyTorch device, or None for the one in force (``on_device``), the CPU.
    """
    x = np.asarray(x)
    if x.dtype == _BFLOAT16:
        tensor = torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(np.array(x, dtype=x.dtype.newbyteorder("="), copy=True, order="C"))
    return tensor.to(device=made_on(device), dtype=as_dtype(dtype, tensor.dtype))


def to_numpy(x: Tensor) -> Array:
    """A fresh NumPy array with the values of ``x``."""
    x = x.detach().cpu().contiguous()
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().copy().view(_BFLOAT16)
    return x.numpy().copy()


def vjp(
    f: Callable[..., Any], inputs: Sequence[Tensor | None], cotangents: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Gradients of ``sum(<cotangent, output>)`` with respect to every input of ``f``.

    Args:
        f: takes the inputs positionally, returns a tensor or a tuple of tensors.
        inputs: tensors; integer and absent ones get no gradient.
        cotangents: one per output of ``f``; None counts as zeros.

    Returns:
        One gradient per input (zeros where the output does not depend on it), None for integer and absent ones.
    """
    leaves = [x.detach().requires_grad_(x.is_floating_point()) if isinstance(x, Tensor) else x for x in inputs]
    with torch.enable_grad():
        outputs = f(*leaves)
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    used = [(y, g) for y, g in zip(outputs, cotangents, strict=True) if g is not None and y is not None]
    used = [(y, g.to(y.dtype)) for y, g in used if y.requires_grad]
    wanted = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
    found: list[Tensor | None] = [None] * len(wanted)
    if used and wanted:
        found = list(torch.autograd.grad([y for y, _ in used], wanted, [g for _, g in used], allow_unused=True))
    grads = iter(torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True))
    return tuple(next(grads) if isinstance(x, Tensor) and x.requires_grad else None for x in leaves)
