"""Keras on PyTorch: the PyTorch backend's operations and kernels, Triton's on CUDA among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch
from torch import Tensor
from torch.nn import functional

from griffin_core_torch import (
    conv1d,
    devices,
    gated_scan,
    linear_scan,
    local_attention,
    recurrent_middle,
    rg_lru,
    rms_norm,
    to_numpy,
    vjp,
)
from griffin_core_torch import from_numpy as tensor_from_numpy
from griffin_core_torch.activation import gelu_product
from griffin_core_torch.arrays import dtype_name as name_of
from griffin_core_torch.kernels import KERNELS
from griffin_core_torch.loss import cross_entropy_sum

__all__ = [
    "COMPILES_SHAPES",
    "KERNELS",
    "KERNELS_OF",
    "adamw",
    "compiled",
    "conv1d",
    "dense",
    "devices",
    "dtype_name",
    "from_numpy",
    "gated_scan",
    "gelu_product",
    "is_concrete",
    "linear_scan",
    "local_attention",
    "mean_cross_entropy",
    "platform",
    "project",
    "recurrent_middle",
    "release_programs",
    "rg_lru",
    "rms_norm",
    "set_threads",
    "to_numpy",
    "vjp",
    "wait",
]

KERNELS_OF = "torch"
"""The backend whose kernels these are."""
COMPILES_SHAPES = False
"""Nothing is compiled: every call runs as it stands."""


def release_programs() -> bool:
    """Nothing is compiled, so there is nothing to drop."""
    return False


set_threads = torch.set_num_threads


def platform(*arrays: Tensor) -> str:
    """Kind of the device of the arrays, or of the one on which Keras makes its own: "cpu", "cuda"."""
    return next((x.device.type for x in arrays if isinstance(x, Tensor)), _keras_device().type)


def from_numpy(x: Any, dtype: str | None = None, device: str | None = None) -> Tensor:
    """A tensor with a copy of ``x``, on the device given or where Keras makes its arrays."""
    return tensor_from_numpy(x, dtype, device or str(_keras_device()))


def dtype_name(x: Tensor) -> str:
    """The name of a tensor's dtype: "float32", "int32", ..."""
    return name_of(x.dtype)


def is_concrete(*arrays: Any) -> bool:
    """Whether the arrays' values can be looked at on the host without waiting for a device."""
    return not torch.compiler.is_compiling() and all(x.device.type == "cpu" for x in arrays if isinstance(x, Tensor))


def dense(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [... i] times kernel [i o], plus bias [o], in x's dtype."""
    return functional.linear(x, kernel.to(x.dtype).t(), None if bias is None else bias.to(x.dtype))


def project(x: Tensor, head: Tensor) -> Tensor:
    """x [b t m] times head [v m], transposed: float32 [b t v] (float64 for float64)."""
    found = functional.linear(x, head.to(x.dtype))
    return found if found.dtype == torch.float64 else found.float()


def mean_cross_entropy(x: Tensor, head: Tensor, targets: Tensor, soft_cap: float | None) -> Tensor:
    """-log softmax of the capped logits at the targets, averaged over those that are not negative; 0 without any."""
    scale = 1.0 / max(int((targets >= 0).sum()), 1)
    return cross_entropy_sum(x.flatten(0, 1), head, targets.flatten().long(), soft_cap, scale)


def wait(x: Tensor) -> None:
    """Until the tensor has its values."""
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)


def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself."""
    return f


def adamw(
    optimizer: Any,
    variables: Sequence[Any],
    first: Sequence[Any],
    second: Sequence[Any],
    grads: Sequence[Tensor],
    decays: Sequence[float],
    rate: Any,
    norm: Tensor,
) -> None:
    """One pass over parameters, gradients and moments by PyTorch's fused kernel; nothing where the norm is not finite.

    Args:
        optimizer: with beta_1, beta_2, epsilon, global_clipnorm, and the variable ``updates``.
        variables, first, second: Keras variables; written.
        decays: weight decay of each.
    """
    length = float(norm)
    if not math.isfinite(length):
        return
    limit = optimizer.global_clipnorm
    count = optimizer.updates.value + 1.0
    divisor = None if limit is None or length <= limit else norm.detach() / limit
    for decay in sorted(set(decays)):
        here = [index for index, value in enumerate(decays) if value == decay]
        torch._fused_adamw_(
            [variables[index].value.data for index in here],
            [grads[index].contiguous() for index in here],
            [first[index].value for index in here],
            [second[index].value for index in here],
            [],
            [count] * len(here),
            lr=float(rate),
            beta1=optimizer.beta_1,
            beta2=optimizer.beta_2,
            weight_decay=decay,
            eps=optimizer.epsilon,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
            found_inf=None,
        )
    optimizer.updates.assign(count)


def _keras_device() -> torch.device:
    device: torch.device = keras.ops.zeros(()).device
    return device
