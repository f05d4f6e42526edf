"""The RG-LRU with its gates' products in one kernel, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import griffin_core_torch as backend
from griffin_core.errors import KernelNotSupported
from griffin_core.protocol import KernelCall
from griffin_core.testing import judge
from griffin_core.testing.cases import Case
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.properties import PROPERTIES, gradients, values
from griffin_core.testing.subjects import from_kernel
from griffin_core.testing.trial import Trial
from griffin_core_torch.triton.plan import block_plan
from griffin_core_torch.triton.records import KERNELS

RECORD = next(kernel for kernel in KERNELS if kernel.op == "rg_lru")
LONG = ("long", "wide", "layout", "repeat")
"""Properties that take the interpreter many minutes, and which the kernels of the same recurrence are held to."""
MIXED = Case(b=2, t=21, d=18, decay="mixed", resets="edges", carry=True, pads=3)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    "case",
    [
        MIXED,
        MIXED.replace(t=16, d=32, dtype="bfloat16", resets="none", pads=0),
        MIXED.replace(t=3, dtype="float16", resets="none", carry=False, pads=0),
        MIXED.replace(t=9, decay="one"),
    ],
    ids=["marks", "whole", "fresh", "no decay"],
)
def test_values_and_gradients(case: Case) -> None:
    judged = Trial(from_kernel(RECORD, OPERATIONS["rg_lru"], "torch", backend, ""), case)
    values.reference(judged)
    gradients.gradient(judged)


@pytest.mark.prove
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("name", [p.name for p in PROPERTIES if p.applies(OPERATIONS["rg_lru"]) and p.name not in LONG])
def test_the_kit(name: str) -> None:
    found = judge(RECORD, backend="torch", properties=(name,), large=False)
    assert found.passed, str(found)


def leaves(heads: int, block: int, time: int, sequences: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(block)
    width = heads * block
    shapes: dict[str, tuple[int, ...]] = {"x": (1, time, width), "h0": (sequences, width), "recurrent_param": (width,)}
    for gate in ("input", "recurrent"):
        shapes |= {f"{gate}_gate_weight": (heads, block, block), f"{gate}_gate_bias": (heads, block)}
    return {name: torch.randn(shape, generator=generator, requires_grad=True) for name, shape in shapes.items()}


def both_passes(given: dict[str, torch.Tensor], starts: Any, kernel: str) -> list[torch.Tensor]:
    params = {name: value for name, value in given.items() if name not in ("x", "h0")}
    outputs = backend.rg_lru(given["x"], params, given["h0"], None, starts, kernel)
    generator = torch.Generator().manual_seed(1)
    seeds = [torch.randn(v.shape, generator=generator) for v in outputs]
    return [*outputs, *torch.autograd.grad(outputs, list(given.values()), seeds)]


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("heads", "block"), [(2, 5), (1, 40)], ids=["small blocks", "blocks of several programs"])
def test_packed_rows_are_one_launch(heads: int, block: int) -> None:
    """Sequences of one row, two of them empty, equal those that the eager kernels run one by one."""
    given, starts = leaves(heads, block, 19, 5), torch.tensor([0, 5, 5, 6, 19, 19])
    got, expected = (both_passes(given, starts, kernel) for kernel in ("triton-fused", "eager"))
    for found, want in zip(got, expected, strict=True):
        torch.testing.assert_close(found, want, rtol=5e-5, atol=5e-5)


@pytest.mark.usefixtures("interpreted")
def test_no_token_leaves_the_state() -> None:
    given = leaves(2, 4, 0, 1)
    y, h, *grads = both_passes(given, None, "triton-fused")
    assert y.shape == (1, 0, 8)
    assert torch.equal(h, given["h0"])
    assert [grad.abs().sum() > 0 for grad in grads] == [False, True, *[False] * 5]


CALL = KernelCall({"x": (1, 4, 32), "input_gate_weight": (1, 32, 32)}, {"x": "bfloat16"}, device="cuda")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"packed": True}, None),
        ({"device": "cpu"}, "it needs a GPU, and the arrays are on cpu"),
        ({"dtypes": {"x": "float32"}}, "x is float32, for whose products matrix units are too coarse"),
        ({"shapes": {"input_gate_weight": (4, 8, 8)}}, "blocks of the gates have 8 channels; matrix units take 16"),
    ],
)
def test_supports(change: dict[str, Any], reason: str | None) -> None:
    found = RECORD.supports(KernelCall(**{**vars(CALL), **change}))
    assert (found or "").startswith(reason or "")
    assert (found is None) == (reason is None)


def test_a_named_kernel_is_refused_on_a_processor() -> None:
    given = leaves(1, 32, 4, 1)
    with pytest.raises(KernelNotSupported, match="kernel 'triton-fused' cannot run rg_lru on torch: it needs a GPU"):
        both_passes(given, None, "triton-fused")


def test_plans_respect_blocks_and_matrix_units() -> None:
    assert block_plan((1, 2048, 2560), 256, 16).width == 64
    small = block_plan((1, 1, 40), 20, 8)
    assert (small.width, small.tokens) == (32, 16)
    assert block_plan((1, 3, 8), 4, 16).width == 16
