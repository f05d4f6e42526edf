"""The recurrence, the convolution and their gradients on a GPU: many launches to a call, inputs beyond its cache."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from griffin_core_torch.conv.compose import conv1d
from griffin_core_torch.devices import made_on, synchronise
from griffin_core_torch.scan.compose import gated_scan, linear_scan, rg_lru
from griffin_core_torch.triton.rg_lru_ops import PARAMETERS

Call = Callable[[], object]
Function = Callable[[Sequence[Tensor]], Tensor]

LAUNCHES = 20
"""Launches of one timed call, after which the device is waited for once."""
BEYOND_CACHE = 256_000_000
"""Bytes of inputs that are taken in turn, at least: several times the largest cache of a GPU."""
TENSORS = {("linear_scan", "forward"): 3, ("gated_scan", "forward"): 4, ("conv1d", "forward"): 2}
TENSORS |= {("rg_lru", "forward"): 2, ("rg_lru", "backward"): 3}
TENSORS |= {("linear_scan", "backward"): 5, ("gated_scan", "backward"): 8, ("conv1d", "backward"): 3}
"""[b t d] arrays that a pass has to read or write once each: what its time is compared with."""
TAPS, DECAY, BLOCK, COMPOSED = 4, 0.1, 256, "triton"


@dataclass(frozen=True)
class Pass:
    """A pass to time.

    Attributes:
        name: operation, direction and kernel.
        call: runs it ``LAUNCHES`` times.
        moved: bytes that one run has to move.
    """

    name: str
    call: Call
    moved: int


def passes(kernels: Sequence[tuple[str, str]], shape: tuple[int, int, int], dtype: str) -> Iterator[Pass]:
    """Both passes of (operation, kernel) pairs on random inputs [b t d], made when asked for.

    Where a kernel has the gates' products inside, what is composed of products and a kernel stands beside it.
    """
    kind = getattr(torch, dtype)
    size = shape[0] * shape[1] * shape[2] * kind.itemsize
    composed = [("rg_lru", COMPOSED)] if any(op == "rg_lru" for op, _ in kernels) else []
    for op, kernel in [*kernels, *composed]:
        function = functools.partial(_run, op, kernel)
        for direction, make in (("forward", forward_call), ("backward", backward_call)):
            moved = TENSORS[op, direction] * size
            sets = [inputs(op, shape, kind, seed) for seed in range(max(2, -(-BEYOND_CACHE // moved)))]
            yield Pass(f"{op} {direction}, {kernel}", make(function, sets), moved)


def copies(moved: int) -> Call:
    """A call that copies ``LAUNCHES`` times, and each time moves ``moved`` bytes, reads and writes counted."""
    count = max(2, -(-BEYOND_CACHE // moved))
    sources = [torch.ones(moved // 8, dtype=torch.float32, device=made_on(None)) for _ in range(count)]
    made = torch.empty_like(sources[0])

    def run() -> None:
        for launch in range(LAUNCHES):
            made.copy_(sources[launch % count])
        synchronise()

    return run


def inputs(op: str, shape: tuple[int, int, int], kind: torch.dtype, seed: int) -> list[Tensor]:
    """Random arguments of an operation of which its arrays are [b t d]."""
    device = made_on(None)
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, device=device).to(kind)

    if op == "linear_scan":
        return [draw(*shape), draw(*shape).abs().mul_(-DECAY)]
    if op == "conv1d":
        return [draw(*shape), draw(shape[2], 1, TAPS), draw(shape[2])]
    if op == "rg_lru":
        block = math.gcd(shape[2], BLOCK)
        heads = shape[2] // block
        gates = [draw(heads, block, block).div_(block**0.5), draw(heads, block)]
        return [draw(*shape), *gates, *[v.clone() for v in gates], draw(shape[2]).float()]
    return [draw(*shape), draw(*shape), draw(*shape), draw(shape[2]).float()]


def _run(op: str, kernel: str, arrays: Sequence[Tensor]) -> Tensor:
    if op == "rg_lru":
        fused: Tensor = rg_lru(arrays[0], dict(zip(PARAMETERS, arrays[1:], strict=True)), kernel=kernel)[0]
        return fused
    function = {"linear_scan": linear_scan, "gated_scan": gated_scan, "conv1d": conv1d}[op]
    y: Tensor = function(*arrays, kernel=kernel)[0]
    return y


def forward_call(function: Function, sets: Sequence[Sequence[Tensor]]) -> Call:
    """A call that runs ``function(arrays)`` ``LAUNCHES`` times, on the sets in turn."""

    @torch.no_grad()
    def run() -> None:
        for launch in range(LAUNCHES):
            function(sets[launch % len(sets)])
        synchronise()

    return run


def backward_call(function: Function, sets: Sequence[Sequence[Tensor]]) -> Call:
    """A call that runs the backward pass of ``function(arrays)`` ``LAUNCHES`` times, on the sets in turn."""
    leaves = [[x.requires_grad_() for x in arrays] for arrays in sets]
    outputs = [function(arrays) for arrays in leaves]
    seeds = [torch.randn_like(y) for y in outputs]

    def run() -> None:
        for launch in range(LAUNCHES):
            n = launch % len(sets)
            torch.autograd.grad(outputs[n], leaves[n], seeds[n], retain_graph=True)
        synchronise()

    return run
