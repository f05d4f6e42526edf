"""The convolution's kernels in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

import griffin_core_torch as backend
from griffin_core import registry
from griffin_core.testing.cases import Case
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.properties import gradients, values
from griffin_core.testing.subjects import from_kernel
from griffin_core.testing.trial import Trial
from griffin_core_torch.triton.conv_passes import ConvCall, conv_forward, places
from griffin_core_torch.triton.plan import Plan
from griffin_core_torch.triton.records import KERNELS

RECORD = next(kernel for kernel in KERNELS if kernel.op == "conv1d")
MIXED = Case(b=2, t=21, d=17, resets="edges", carry=True, pads=3)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    "case",
    [
        MIXED,
        MIXED.replace(t=16, d=16, dtype="bfloat16", resets="none", pads=0),
        MIXED.replace(dtype="float16", resets="none", carry=False, pads=0),
        MIXED.replace(t=2, resets="none", pads=0),
        MIXED.replace(t=5, pads=3, resets="none"),
    ],
    ids=["marks", "whole", "fresh", "shorter than the taps", "mostly padding"],
)
def test_values_and_gradients(case: Case) -> None:
    judged = Trial(from_kernel(RECORD, OPERATIONS["conv1d"], "torch", backend, ""), case)
    values.reference(judged)
    gradients.gradient(judged)


def inputs(taps: int, sequences: int, state: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(taps)
    shapes = [(1, 19, 9), (9, 1, taps), (9,), (sequences, taps - 1, 9)]
    found = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    return found if state else found[:3]


def both_passes(kernel: str, leaves: list[torch.Tensor], *more: torch.Tensor | None) -> list[torch.Tensor]:
    given = [*leaves, *[None] * (4 - len(leaves))]
    outputs = backend.conv1d(*given, *more, kernel=kernel)
    generator = torch.Generator().manual_seed(1)
    seeds = [torch.randn(v.shape, generator=generator) for v in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, seeds, materialize_grads=True)]


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("taps", "state", "marks"), [(4, True, False), (4, False, True), (3, True, True), (1, True, False)]
)
def test_packed_rows_are_one_launch(monkeypatch: pytest.MonkeyPatch, taps: int, state: bool, marks: bool) -> None:
    """Sequences of one row, two of them empty, one shorter than the taps, equal those that the eager kernel runs."""
    monkeypatch.setattr(registry, "kernels", lambda backend: records)
    records = (RECORD, *backend.KERNELS)
    starts = torch.tensor([0, 5, 5, 7, 19, 19])
    positions = torch.tensor([[0, 1, 0, 1, 2, 7, 8, *range(3), *range(6), -1, -1, -1]]) if marks else None
    leaves = inputs(taps, 5, state)
    got, expected = (both_passes(kernel, leaves, positions, starts) for kernel in ("triton", "eager"))
    for found, want in zip(got, expected, strict=True):
        torch.testing.assert_close(found, want, rtol=2e-5, atol=2e-5)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("packed", [False, True])
def test_states_are_read_and_left_in_their_slots(packed: bool) -> None:
    """Sequence n has row slots[n] of the states; other rows stay as they are."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn((1, 12, 9) if packed else (2, 6, 9), generator=generator)
    weight, bias, states = (torch.randn(shape, generator=generator) for shape in ((9, 1, 4), (9,), (5, 3, 9)))
    slots, starts = torch.tensor([3, 1], dtype=torch.int32), torch.tensor([0, 6, 12]) if packed else None
    call = ConvCall(x, weight, bias, states, None, starts, slots)
    y, left = conv_forward(call, Plan(4, 2, 16))
    expected, last = backend.conv1d(x.reshape(2, 6, 9), weight, bias, states[slots.long()])
    torch.testing.assert_close(y.reshape(2, 6, 9), expected)
    assert torch.equal(left[slots.long()], last)
    assert torch.equal(left[[0, 2, 4]], states[[0, 2, 4]])


def test_places_of_packed_tokens() -> None:
    starts = torch.tensor([0, 0, 3, 3, 4])
    found, local = places(starts, 4, None)
    assert found.tolist() == [1, 1, 1, 3]
    assert local.tolist() == [0, 1, 2, 0]
    assert places(starts, 4, torch.tensor([9, 8, 7, 6], dtype=torch.int32))[0].tolist() == [8, 8, 8, 6]


@pytest.mark.usefixtures("interpreted")
def test_empty_calls_keep_the_state() -> None:
    state = torch.randn(2, 3, 8)
    y, left = RECORD.forward(torch.zeros(2, 0, 8), torch.ones(8, 1, 4), torch.zeros(8), state)
    assert y.shape == (2, 0, 8)
    assert torch.equal(left, state)
    assert left is not state
