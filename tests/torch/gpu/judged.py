"""The conformance kit on a device, as ``griffin verify`` runs it, and what it does not judge."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

import griffin_core_torch as backend
from griffin_core import registry
from griffin_core.protocol import Kernel
from griffin_core.testing import Case, Report, assert_close, bounds, judge
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.subjects import from_kernel
from griffin_core.testing.trial import Trial
from griffin_core_torch.triton.records import GATE_ERROR
from tests.torch.gpu.calls import RECORDS, make_call

ROUGH = ("gated_scan", "triton-approx")
"""It states errors of its own, which the kit's bounds have no room for."""
DECAYS = ("1e-1", "1e-3", "1e-6")
RUNNING = {key: kernel for key, kernel in RECORDS.items() if key != ROUGH}


def judged(kernel: Kernel, device: str, profile: str, properties: Iterable[str] | None = None) -> Report:
    """``griffin verify --backend torch --device DEVICE --kernel NAME --op OP --profile PROFILE``."""
    with registry.on_device("torch", device):
        return judge(kernel.name, backend="torch", op=kernel.op, profile=profile, properties=properties)


def rough_gates(device: str, decay: str, shape: tuple[int, int, int]) -> None:
    """The kernel with rough gates stays within the bound that follows from the error that it states.

    Raises:
        AssertionError: it does not.
    """
    batch, time, width = shape
    case = Case(b=batch, t=time, d=width, decay=decay, resets="edges", carry=True, pads=3)
    operation = OPERATIONS[ROUGH[0]]
    with registry.on_device("torch", device):
        trial = Trial(from_kernel(RECORDS[ROUGH], operation, "torch", backend, ""), case)
        inputs = trial.inputs()
        got = trial.run(inputs)
    expected = operation.reference(inputs)
    limits = bounds.states(bounds.given_gates(inputs, GATE_ERROR).scanned)
    for name in ("y", "h"):
        assert_close(got[name], expected[name], limits[name], dtype="float32", what=name, call=repr(case))


def packed_beside_eager(kernel: Kernel, shape: tuple[int, int, int], device: str) -> None:
    """Both passes over packed sequences equal those of the eager kernels on a processor, one by one.

    Raises:
        AssertionError: they do not.
    """
    coarse = kernel.op == "rg_lru" and device != "cpu"
    dtype = "bfloat16" if coarse else "float32"
    call, other = (make_call(kernel, shape, where, dtype, "packed") for where in (device, "cpu"))
    outputs = getattr(backend, kernel.op)(*other.arguments, kernel="eager")
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(outputs))]
    seeds = [torch.randn(x.shape, generator=g).to(x.dtype) for x, g in zip(outputs, generators, strict=True)]
    expected = [*outputs, *torch.autograd.grad(outputs, other.leaves(), seeds)]
    with np.errstate(all="ignore"):
        found = call.both()
    near = 0.05 if coarse else 1e-3 if kernel.name == ROUGH[1] else 5e-5
    for got, want in zip(found, expected, strict=True):
        size = float(want.detach().abs().max()) or 1.0
        torch.testing.assert_close(got.cpu().float(), want.detach().float(), rtol=near, atol=near * size)
