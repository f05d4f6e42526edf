"""From an operation's call to the kernel that runs it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from griffin_core import registry
from griffin_core.checks import check_starts
from griffin_core.protocol import Kernel, KernelCall
from griffin_core_torch.arrays import dtype_name
from griffin_core_torch.scan.autograd import wants_grad
from griffin_core_torch.triton.loading import interpreted

BACKEND = "torch"
_CACHE_SIZE = 1024
_cache: dict[tuple[Any, ...], tuple[tuple[Kernel, ...], Kernel | None]] = {}


def choose(op: str, kernel: str | None, arrays: Mapping[str, Tensor | None]) -> Kernel | None:
    """The kernel for a call, or None when the operation is to be composed.

    Choices are kept by every fact a kernel may judge by, and made anew when kernels are registered.

    Raises:
        KernelNotSupported: a named kernel does not exist or cannot run this call.
    """
    wanted = registry.requested_kernel(kernel)
    present = [(name, x) for name, x in arrays.items() if x is not None]
    needs_grad = wants_grad(*(x for _, x in present))
    device = present[0][1].device.type
    key = (op, wanted, needs_grad, device, interpreted(), *((name, x.shape, x.dtype) for name, x in present))
    records = registry.kernels(BACKEND)
    kept = _cache.get(key)
    if kept is not None and kept[0] is records:
        return kept[1]
    chosen = registry.select_kernel(BACKEND, op, _call(present, device, needs_grad, packed=False), wanted)
    if len(_cache) >= _CACHE_SIZE:
        _cache.clear()
    _cache[key] = (records, chosen)
    return chosen


def choose_packed(op: str, kernel: str | None, arrays: Mapping[str, Tensor | None]) -> Kernel | None:
    """The kernel of ``op`` that runs packed sequences in one call, or None (``registry.packed_kernel``)."""
    present = [(name, x) for name, x in arrays.items() if x is not None]
    call = _call(present, present[0][1].device.type, wants_grad(*(x for _, x in present)), packed=True)
    return registry.packed_kernel(BACKEND, op, call, kernel)


def _call(present: Sequence[tuple[str, Tensor]], device: str, needs_grad: bool, packed: bool) -> KernelCall:
    shapes = {name: tuple(x.shape) for name, x in present}
    dtypes = {name: dtype_name(x.dtype) for name, x in present}
    return KernelCall(shapes=shapes, dtypes=dtypes, device=device, packed=packed, needs_grad=needs_grad)


def by_sequence(
    operation: Callable[..., tuple[Tensor, ...]],
    starts: Tensor | Sequence[int],
    timed: Sequence[Tensor | None],
    per_row: Sequence[Tensor | None],
) -> tuple[Tensor, ...]:
    """Run an operation on each sequence packed in one row; this is what ``starts`` means.

    Args:
        operation: called with the pieces of ``timed``, then those of ``per_row``.
        starts: int [n+1].
        timed: [1 t ...] each, cut along time.
        per_row: [n ...] each, cut along axis 0.

    Returns:
        The first output joined along time, the others along axis 0.

    Raises:
        InputError: ``starts`` does not cut one row into sequences.
    """
    cuts = starts.tolist() if isinstance(starts, Tensor) else [int(s) for s in starts]
    first = next(x for x in timed if x is not None)
    check_starts(cuts, first.shape[0], first.shape[1])
    pieces = []
    for row, (start, stop) in enumerate(itertools.pairwise(cuts)):
        parts = [None if x is None else x[:, start:stop] for x in timed]
        states = [None if x is None else x[row : row + 1] for x in per_row]
        pieces.append(operation(*parts, *states))
    outputs = list(zip(*pieces, strict=True))
    return (torch.cat(outputs[0], dim=1), *(torch.cat(rest, dim=0) for rest in outputs[1:]))
