"""The conformance kit on a device, as ``griffin verify`` runs it, and what it does not judge."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace

import torch

import griffin_core_torch as backend
from griffin_core import registry
from griffin_core.protocol import Kernel
from griffin_core.testing import Case, Report, assert_close, bounds, judge
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.properties import BY_NAME
from griffin_core.testing.subjects import from_kernel
from griffin_core.testing.trial import Trial
from griffin_core_torch.triton.records import GATE_ERROR
from tests.torch.gpu.calls import RECORDS, Call, Tree, make_call

ROUGH = ("gated_scan", "triton-approx")
"""It states errors of its own, which the kit's bounds have no room for."""
DECAYS = ("1e-1", "1e-3", "1e-6")
FUSED = ("rg_lru", "triton-fused")
_MIXED = Case(b=2, t=300, d=96, dtype="bfloat16", decay="mixed", resets="edges", carry=True, pads=3, cut=129, blocks=2)
FUSED_CASES = (
    _MIXED,
    _MIXED.replace(t=256, d=256, resets="none", pads=0, blocks=1),
    _MIXED.replace(b=1, t=17, d=70, dtype="float16", decay="1e-3", cut=5),
    _MIXED.replace(t=40, d=51, decay="1e-6", resets="random", carry=False, cut=39, blocks=3),
)
"""16 bits and 16 or more channels in a block: what its matrix units take, in whole blocks and in parts."""
NEAR, NEAR_ROUGH, NEAR_COARSE = 1e-4, 5e-3, 0.03
"""Of the largest element: float32, rough gates, and results and gates' gradients that are stored in bfloat16."""
RUNNING = {key: kernel for key, kernel in RECORDS.items() if key != ROUGH}


def judged(kernel: Kernel, device: str, profile: str, properties: Iterable[str] | None = None) -> Report:
    """``griffin verify --backend torch --device DEVICE --kernel NAME --op OP --profile PROFILE``."""
    with registry.on_device("torch", device):
        return judge(kernel.name, backend="torch", op=kernel.op, profile=profile, properties=properties)


def whole_kit(kernel: Kernel, case: Case, device: str, names: Iterable[str] = BY_NAME) -> None:
    """Properties on one case: for a kernel that refuses most of the small ones that the kit begins with.

    Raises:
        AssertionError: one does not hold.
    """
    operation = OPERATIONS[kernel.op]
    with registry.on_device("torch", device):
        trial = Trial(from_kernel(kernel, operation, "torch", backend, ""), case)
        for name in names:
            if BY_NAME[name].applies(operation):
                BY_NAME[name].check(trial)


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
    """Both passes over packed sequences equal those of the eager kernels in float32 on a processor, one by one.

    Raises:
        AssertionError: they do not.
    """
    coarse = kernel.op == "rg_lru" and device != "cpu"
    call = make_call(kernel, shape, device, "bfloat16" if coarse else "float32", "packed")
    eager = replace(kernel, forward=functools.partial(getattr(backend, kernel.op), kernel="eager"))
    expected = Call(eager, tuple(_widened(value) for value in call.arguments)).both()
    near = NEAR_COARSE if coarse else NEAR_ROUGH if kernel.name == ROUGH[1] else NEAR
    for got, want in zip(call.both(), expected, strict=True):
        size = float(want.abs().max()) or 1.0
        torch.testing.assert_close(got.cpu().float(), want, rtol=near, atol=near * size)


def _widened(value: Tree) -> Tree:
    """A copy on the processor, of floating tensors in float32."""
    if isinstance(value, dict):
        return {name: _widened(x) for name, x in value.items()}
    if value is None or not value.is_floating_point():
        return None if value is None else value.cpu()
    return value.detach().cpu().float().requires_grad_()
