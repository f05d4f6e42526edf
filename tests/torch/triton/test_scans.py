"""The kernels that ship, in Triton's interpreter: values and gradients against the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import griffin_core_torch as backend
from griffin_core import registry
from griffin_core.errors import InputError, KernelNotSupported
from griffin_core.protocol import Kernel, KernelCall
from griffin_core.testing import judge
from griffin_core.testing.cases import Case
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.properties import PROPERTIES, gradients, values
from griffin_core.testing.subjects import from_kernel
from griffin_core.testing.trial import Trial
from griffin_core_torch.triton import loading
from griffin_core_torch.triton.call import edges, side_by_side
from griffin_core_torch.triton.records import CARRIES, KERNELS, supports

BY_NAME = {(kernel.op, kernel.name): kernel for kernel in KERNELS}
FORMS = sorted(set(CARRIES) - {"triton"})
MIXED = Case(b=2, t=21, d=17, decay="mixed", resets="edges", carry=True, pads=3)


def trial(op: str, name: str, case: Case) -> Trial:
    kernel = BY_NAME[op, name]
    return Trial(from_kernel(kernel, OPERATIONS[op], "torch", backend, ""), case)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("op", ["linear_scan", "gated_scan"])
@pytest.mark.parametrize("name", FORMS)
def test_values_and_gradients(op: str, name: str) -> None:
    """Several tiles, ragged in time and width, documents that start at edges, padding, every decay."""
    judged = trial(op, name, MIXED)
    values.reference(judged)
    gradients.gradient(judged)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("op", "name", "case"),
    [
        ("gated_scan", "triton-exact", MIXED.replace(t=16, d=16, dtype="bfloat16", resets="none", pads=0)),
        ("gated_scan", "triton-aggregate", MIXED.replace(dtype="float16", resets="none", carry=False, pads=0)),
        ("linear_scan", "triton-aggregate", MIXED.replace(t=16, d=16, dtype="bfloat16", resets="none", carry=False)),
        ("gated_scan", "triton-two-pass", MIXED.replace(decay="1e-6", resets="none", pads=0)),
        ("gated_scan", "triton", MIXED.replace(t=9, decay="one")),
        ("linear_scan", "triton", MIXED.replace(t=9, decay="zero")),
    ],
)
def test_other_forms(op: str, name: str, case: Case) -> None:
    """Whole tiles, no state or marks coming in, 16 bits, decays at both ends."""
    judged = trial(op, name, case)
    values.reference(judged)
    gradients.gradient(judged)


def packed_inputs(op: str, carry: bool, seed: int = 3) -> tuple[dict[str, Any], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    starts = torch.tensor([0, 5, 5, 6, 19, 19])
    x, y, z = (torch.randn(1, 19, 9, generator=generator) for _ in range(3))
    found: dict[str, Any] = {"x": x, "log_a": -z.abs()} if op == "linear_scan" else {"x": x, "gate_x": y, "gate_a": z}
    if op == "gated_scan":
        found["recurrent_param"] = torch.randn(9, generator=generator) - 3
    found["h0"] = torch.randn(5, 9, generator=generator) if carry else None
    for value in found.values():
        if value is not None:
            value.requires_grad_()
    return found, starts


def both_passes(op: str, kernel: str, given: dict[str, Any], starts: torch.Tensor) -> list[torch.Tensor]:
    leaves = [value for value in given.values() if value is not None]
    y, h = getattr(backend, op)(*given.values(), None, starts, kernel=kernel)
    generator = torch.Generator().manual_seed(1)
    seeds = [torch.randn(v.shape, generator=generator) for v in (y, h)]
    return [y, h, *torch.autograd.grad([y, h], leaves, seeds)]


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("carry", [True, False])
@pytest.mark.parametrize(("op", "name"), [("gated_scan", "triton-exact"), ("linear_scan", "triton-aggregate")])
def test_packed_rows_are_one_launch(monkeypatch: pytest.MonkeyPatch, op: str, name: str, carry: bool) -> None:
    """Sequences of one row, two of them empty, equal those that the eager kernel runs one by one."""
    records = (BY_NAME[op, name], *backend.KERNELS)
    monkeypatch.setattr(registry, "kernels", lambda backend: records)
    given, starts = packed_inputs(op, carry)
    got, expected = both_passes(op, name, given, starts), both_passes(op, "eager", given, starts)
    for found, want in zip(got, expected, strict=True):
        torch.testing.assert_close(found, want, rtol=2e-5, atol=2e-5)


@pytest.mark.usefixtures("interpreted")
def test_packed_rows_of_the_exact_kernel_equal_separate_ones_to_the_bit() -> None:
    given, starts = packed_inputs("gated_scan", carry=True)
    kernel = BY_NAME["gated_scan", "triton-exact"].forward
    x, gate_x, gate_a, param, h0 = (value.detach() for value in given.values())
    y, h = kernel(x, gate_x, gate_a, param, h0, None, starts)
    for row, (start, stop) in enumerate([(0, 5), (5, 6), (6, 19)]):
        source = (0, 2, 3)[row]
        alone = kernel(x[:, start:stop], gate_x[:, start:stop], gate_a[:, start:stop], param, h0[source : source + 1])
        assert torch.equal(alone[0][0], y[0, start:stop])
        assert torch.equal(alone[1][0], h[source])
    assert torch.equal(h[1], h0[1])


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("name", FORMS)
def test_nothing_passes_a_reset(name: str) -> None:
    """NaN before a reset, in the first state, another row or channel, or at padding never passes - nor backwards."""
    judged = trial("gated_scan", name, MIXED)
    inputs = judged.inputs()
    at = np.arange(21)
    inputs["positions"] = np.where(at >= 19, -1, at % 7)[None].repeat(2, 0).astype(np.int32)
    dirty = {key: np.array(value) for key, value in inputs.items()}
    dirty["h0"][:] = np.nan
    for key in ("x", "gate_x", "gate_a"):
        dirty[key][0, 5], dirty[key][1, 3, 2], dirty[key][:, 19:] = np.nan, np.inf, np.nan
    seeds = values.cotangents(judged)
    clean, got = (
        {**judged.run(given), **{f"d{k}": v for k, v in judged.subject.gradient(given, seeds).items() if v is not None}}
        for given in (inputs, dirty)
    )
    for key, want in clean.items():
        assert np.isfinite(want).all(), key
        if want.ndim == 3:
            np.testing.assert_array_equal(got[key][:, 7:], want[:, 7:], err_msg=key)
            np.testing.assert_array_equal(got[key][1, :, 3:], want[1, :, 3:], err_msg=key)
    assert (got["dh0"] == 0).all()
    assert all((got[key][:, 19:] == 0).all() for key in ("y", "dx", "dgate_x", "dgate_a"))


@pytest.mark.usefixtures("interpreted")
def test_strides_and_empty_calls() -> None:
    whole = torch.randn(2, 6, 3, 8)
    x, gate_x, gate_a = (whole[:, :, n] for n in range(3))  # one fused product, cut in three
    assert side_by_side(x) is x
    assert side_by_side(x.transpose(1, 2)).is_contiguous()
    assert side_by_side(x[:, :1].expand(2, 6, 8)).is_contiguous()
    forward = BY_NAME["gated_scan", "triton-exact"].forward
    y, h = forward(x, gate_x, gate_a, torch.zeros(8))
    again, last = forward(x.contiguous(), gate_x.contiguous(), gate_a.contiguous(), torch.zeros(8))
    assert torch.equal(y, again)
    assert torch.equal(h, last)
    h0 = torch.randn(2, 8)
    y, h = forward(x[:, :0], x[:, :0], x[:, :0], torch.zeros(8), h0)
    assert y.shape == (2, 0, 8)
    assert torch.equal(h, h0)


def test_edges_name_the_sequences_with_tokens() -> None:
    begins, ends = edges([0, 0, 3, 3, 4], 4)
    assert begins.tolist() == [1, -1, -1, 3]
    assert ends.tolist() == [-1, -1, 1, 3]


CALL = KernelCall({"x": (1, 4, 8)}, {"x": "bfloat16", "gate_x": "float16", "gate_a": "float32"}, device="cuda")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"packed": True}, None),
        ({"device": "cpu"}, "it needs a GPU, and the arrays are on cpu"),
        ({"dtypes": {"x": "float64"}}, "x is float64; it takes float32, bfloat16 and float16"),
    ],
)
def test_supports(change: dict[str, Any], reason: str | None) -> None:
    assert supports(KernelCall(**{**vars(CALL), **change})) == reason


@pytest.mark.parametrize("name", CARRIES)
def test_no_program_waits_on_amd(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    reason = BY_NAME["gated_scan", name].supports(CALL)
    if name in ("triton-exact", "triton-aggregate"):
        assert reason is not None
        assert reason.startswith("one program waits for another in it")
    else:
        assert reason is None


def test_supports_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    assert supports(CALL) == "triton is not installed; PyTorch's CUDA and ROCm builds bring it"


def test_a_named_kernel_is_refused_on_a_processor() -> None:
    x = torch.zeros(1, 3, 4)
    with pytest.raises(KernelNotSupported, match="kernel 'triton' cannot run gated_scan on torch: it needs a GPU"):
        backend.gated_scan(x, x, x, torch.zeros(4), kernel="triton")
    with pytest.raises(InputError, match="gate_x has shape"):
        backend.gated_scan(x, x[:, :2], x, torch.zeros(4), kernel="triton")


WHOLE_KIT = (("gated_scan", "triton-exact"), ("conv1d", "triton"))
PART = ("reference", "gradient", "cut", "packed")
"""Properties that another way of handing the state on can break; "triton" itself is one of the others."""


def judgements() -> Iterator[Any]:
    """(kernel, property), one test each, so that several processes share the work."""
    for kernel in KERNELS:
        if kernel.name in FORMS or kernel.op == "conv1d":
            whole = [p.name for p in PROPERTIES if p.applies(OPERATIONS[kernel.op])]
            for name in whole if (kernel.op, kernel.name) in WHOLE_KIT else PART:
                yield pytest.param(kernel, name, id=f"{kernel.op}-{kernel.name}-{name}")


@pytest.mark.prove
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("kernel", "name"), list(judgements()))
def test_the_kit_judges_the_records(kernel: Kernel, name: str) -> None:
    report = judge(kernel, backend="torch", properties=(name,), large=False)
    assert report.passed, str(report)
    assert [(record.property, record.refused) for record in report.records] == [(name, {})]
