"""Both passes of the public kernels on our inputs, compared with our float32 before they are timed."""

from __future__ import annotations

import functools
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from griffin_core_torch import benchmark_scans
from griffin_core_torch.benchmark_scan_adapters import Run, Shape
from griffin_core_torch.benchmark_scan_peers import PEERS, Peer, as_it_is
from griffin_core_torch.benchmark_scans import TENSORS, Function, Pass, backward_call, forward_call, inputs
from griffin_core_torch.scan.compose import gated_scan, linear_scan

COMPARED: Shape = (2, 256, 64)
"""[b t d] of the comparison: it crosses a chunk of every peer that has chunks of 128 tokens, and all of them run it."""


@dataclass(frozen=True)
class PeerPass(Pass):
    """A pass of a public kernel.

    Attributes:
        remark: how far its result is from ours in float32.
    """

    remark: str


def peer_passes(ops: Collection[str], shape: Shape, dtype: str) -> tuple[list[PeerPass], list[str]]:
    """Passes of the installed peers that stand beside ``ops``, and a line on each peer: what differs, or why it is out.

    A peer that takes arrays in another layout has two rows: from and to [b t d], and in its own layout alone.
    """
    found: list[PeerPass] = []
    lines = []
    drawn = _Drawn(dtype)
    for peer in PEERS:
        if peer.op not in ops:
            continue
        cut = (shape[0], min(shape[1], peer.longest or shape[1]), shape[2])
        reason = peer.absent() or peer.refuses(cut, dtype)
        if reason is None:
            try:
                found += list(_passes(peer, cut, dtype, drawn))
            except Exception as problem:  # a peer may raise anything; ours are timed without it
                reason = f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0]}"
        if reason is None and peer.forward_only is not None:
            lines.append(f"{peer.name}, beside {peer.op}: {peer.differs}; forward only: {peer.forward_only}")
        elif reason is None:
            lines.append(f"{peer.name}, beside {peer.op}: {peer.differs}")
        else:
            lines.append(f"{peer.name}, beside {peer.op}, is left out: {reason}")
    return found, lines


class _Drawn:
    """Inputs of a dtype, made once for all peers: in our layout, and in theirs."""

    def __init__(self, dtype: str) -> None:
        self.kind: torch.dtype = getattr(torch, dtype)
        self._made: dict[Hashable, list[Sequence[Tensor]]] = {}

    def ours(self, op: str, shape: Shape) -> list[Sequence[Tensor]]:
        """Enough sets that no cache holds them; one, where one is enough."""
        if (op, shape) not in self._made:
            moved = TENSORS[op, "forward"] * shape[0] * shape[1] * shape[2] * self.kind.itemsize
            count = max(1, -(-benchmark_scans.BEYOND_CACHE // moved))
            self._made[op, shape] = [inputs(op, shape, self.kind, seed) for seed in range(count)]
        return self._made[op, shape]

    @torch.no_grad()
    def theirs(self, peer: Peer, shape: Shape) -> list[Sequence[Tensor]]:
        """The same sets in the peer's layout; peers that share a layout share them."""
        if (peer.enter, shape) not in self._made:
            self._made[peer.enter, shape] = [peer.enter(*arrays) for arrays in self.ours(peer.op, shape)]
        return self._made[peer.enter, shape]


def _passes(peer: Peer, shape: Shape, dtype: str, drawn: _Drawn) -> Iterator[PeerPass]:
    run = peer.load()
    ours = functools.partial(_from_ours, peer, run)
    errors = compare(peer, ours, drawn.kind)
    name = peer.name if peer.longest is None else f"{peer.name}, {shape[1]} tokens"
    forms: list[tuple[str, Function, list[Sequence[Tensor]]]] = [(name, ours, drawn.ours(peer.op, shape))]
    if peer.enter is not as_it_is:
        forms.append((f"{name}, its own layout", lambda arrays: run(*arrays), drawn.theirs(peer, shape)))
    size = shape[0] * shape[1] * shape[2] * drawn.kind.itemsize
    for label, function, sets in forms:
        for direction, error in zip(("forward", "backward"), errors, strict=False):
            call = (forward_call if direction == "forward" else backward_call)(function, sets)
            call()  # what fails at this size has to fail here, where the others go on
            remark = f"largest error {error:.1e} of the largest {'value' if direction == 'forward' else 'gradient'}"
            yield PeerPass(f"{peer.op} {direction}, {label}", call, TENSORS[peer.op, direction] * size, remark)


def _from_ours(peer: Peer, run: Run, arrays: Sequence[Tensor]) -> Tensor:
    return peer.leave(run(*peer.enter(*arrays)))


def compare(peer: Peer, function: Function, kind: torch.dtype) -> list[float]:
    """Largest errors of the output and of the gradients (where it has them), each over the largest of its kind.

    The judge is our float32 on the same inputs widened, with its plain kernel.
    """
    arrays = inputs(peer.op, COMPARED, kind, 0)
    seed = torch.randn_like(arrays[0])
    got = _outcome(function, arrays, seed, peer.forward_only is None)
    expected = _outcome(functools.partial(_reference, peer), [x.float() for x in arrays], seed, len(got) > 1)
    if got[0].shape != expected[0].shape:
        raise ValueError(f"its result is {tuple(got[0].shape)} where ours is {tuple(expected[0].shape)}")
    errors = [(a.float() - b).abs().max() / b.abs().max() for a, b in zip(got, expected, strict=True)]
    return [float(torch.stack(part).max()) for part in (errors[:1], errors[1:]) if part]


def _outcome(function: Function, arrays: Sequence[Tensor], seed: Tensor, backward: bool) -> list[Tensor]:
    """The output, and the gradients of the arrays."""
    if not backward:
        with torch.no_grad():
            return [function(arrays)]
    leaves = [x.clone().requires_grad_() for x in arrays]
    y = function(leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, seed.to(y.dtype))]


def _reference(peer: Peer, arrays: Sequence[Tensor]) -> Tensor:
    y: Tensor
    if peer.op == "linear_scan":
        y, _ = linear_scan(*arrays, kernel="eager")
        return y
    # A state from before makes token 0 one as any other.
    h0 = None if peer.starts else torch.zeros_like(arrays[0][:, 0])
    y, _ = gated_scan(*arrays, h0, kernel="eager")
    return y
