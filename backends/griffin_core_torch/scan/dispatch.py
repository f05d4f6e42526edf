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
from griffin_core_torch.tracing import settled_when_traced
from griffin_core_torch.triton.loading import interpreted

BACKEND = "torch"
_CACHE_SIZE = 1024
_cache: dict[tuple[Any, ...], tuple[tuple[Kernel, ...], str | None]] = {}
_known: dict[str, Any] = {}
"""Kernels by operation and name, for compiled code, which can look one up but not make its choice; "": their source."""


_Facts = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]


def choose(op: str, kernel: str | None, arrays: Mapping[str, Tensor | None]) -> Kernel | None:
    """The kernel for a call, or None when the operation is to be composed.

    Choices are kept by every fact a kernel may judge by, and made anew when kernels are registered.

    Raises:
        KernelNotSupported: a named kernel does not exist or cannot run this call.
    """
    facts, device, needs_grad = _facts(arrays)
    name = _chosen(op, kernel, facts, device, needs_grad, interpreted())
    return None if name is None else _known[op + " " + name]


def choose_packed(op: str, kernel: str | None, arrays: Mapping[str, Tensor | None]) -> Kernel | None:
    """The kernel of ``op`` that runs packed sequences in one call, or None (``registry.packed_kernel``)."""
    facts, device, needs_grad = _facts(arrays)
    name = _chosen_packed(op, kernel, facts, device, needs_grad)
    return None if name is None else _known[op + " " + name]


@settled_when_traced
def part_kernel(op: str, kernel: str | None) -> str:
    """``registry.part_kernel`` of this backend."""
    return registry.part_kernel(BACKEND, op, kernel)


def _facts(arrays: Mapping[str, Tensor | None]) -> tuple[_Facts, str, bool]:
    present = [(name, x) for name, x in arrays.items() if x is not None]
    facts = tuple([(name, tuple(x.shape), x.dtype) for name, x in present])
    return facts, present[0][1].device.type, wants_grad(*[x for _, x in present])


@settled_when_traced  # compiled code asks once, while it is traced
def _chosen(op: str, kernel: str | None, *facts: Any) -> str | None:
    wanted = registry.requested_kernel(kernel)
    key, records = (op, wanted, *facts), _records()
    kept = _cache.get(key)
    if kept is not None and kept[0] is records:
        return kept[1]
    shapes, device, needs_grad, _ = facts
    chosen = registry.select_kernel(BACKEND, op, _call(shapes, device, needs_grad, packed=False), wanted)
    if len(_cache) >= _CACHE_SIZE:
        _cache.clear()
    _cache[key] = (records, None if chosen is None else chosen.name)
    return _cache[key][1]


@settled_when_traced
def _chosen_packed(op: str, kernel: str | None, facts: _Facts, device: str, needs_grad: bool) -> str | None:
    _records()
    found = registry.packed_kernel(BACKEND, op, _call(facts, device, needs_grad, packed=True), kernel)
    return None if found is None else found.name


def _records() -> tuple[Kernel, ...]:
    """The registered kernels, by now also under their names."""
    records = registry.kernels(BACKEND)
    if _known.get("") is not records:
        _known.clear()
        _known.update({"": records}, **{f"{record.op} {record.name}": record for record in records})
    return records


def _call(facts: _Facts, device: str, needs_grad: bool, packed: bool) -> KernelCall:
    shapes = {name: shape for name, shape, _ in facts}
    dtypes = {name: dtype_name(dtype) for name, _, dtype in facts}
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
