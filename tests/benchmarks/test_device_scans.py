"""What is timed on a device, run on the processor: the passes, their bytes and what they are compared with."""

from __future__ import annotations

import pytest
import torch

from griffin_core import registry
from griffin_core.benchmarks import entries
from griffin_core.benchmarks.cases import BENCH_110M, Sizes, device_target
from griffin_core.benchmarks.gate import timed_kernels
from griffin_core.benchmarks.pairing import interleave
from griffin_core.benchmarks.service import load_timers
from griffin_core.benchmarks.work import Setup
from griffin_core_torch import benchmark_scans

SIZES = Sizes(batch=2, tokens=9, width=8, runs=1)


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Setup:
    monkeypatch.setattr(benchmark_scans, "BEYOND_CACHE", 4000)
    return Setup("torch", registry.load_backend("torch"), BENCH_110M, SIZES, "bfloat16")


def test_every_pass_beside_a_copy_of_its_bytes(setup: Setup) -> None:
    plan = entries.Plan(setup, load_timers("torch", setup.module), judged=False, peers=False)
    found = entries.device_scan(plan)
    size = 2 * 9 * 8 * 2
    moved = {entry.name: entry.moved for entry in found}
    assert moved["gated_scan forward, eager"] == 4 * size
    assert moved["gated_scan backward, eager"] == 8 * size
    assert moved["linear_scan backward, eager"] == 5 * size
    assert moved["conv1d forward, eager"] == 2 * size
    for entry in found:
        if entry.versus is not None:
            assert moved[entry.versus] == entry.moved
    timings = interleave([entry.contender for entry in found], 1)
    assert all(timing.median > 0 for timing in timings.values())


def test_inputs_rotate(monkeypatch: pytest.MonkeyPatch, setup: Setup) -> None:
    seen: list[int] = []
    monkeypatch.setattr(benchmark_scans, "_run", lambda op, kernel, arrays: seen.append(arrays[0].data_ptr()))
    one = next(benchmark_scans.passes([("linear_scan", "eager")], (2, 9, 8), "float32"))
    one.call()
    assert len(seen) == benchmark_scans.LAUNCHES
    assert len(set(seen)) == -(-4000 // one.moved)
    assert seen[0] != seen[1]


def test_the_device_is_judged_before_it_is_timed(monkeypatch: pytest.MonkeyPatch, setup: Setup) -> None:
    assert {kernel.op for kernel in timed_kernels(setup, "scan")} == {"linear_scan"}
    monkeypatch.setattr(setup.module, "platform", lambda: "cuda")
    assert {kernel.op for kernel in timed_kernels(setup, "scan")} == {"gated_scan", "linear_scan", "conv1d"}


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "limit"),
    [
        ("gated_scan forward, triton", (8, 8192, 2560), "bfloat16", 0.90),
        ("gated_scan backward, triton", (1, 131_072, 4096), "bfloat16", 0.85),
        ("gated_scan backward, triton", (32, 2048, 1024), "bfloat16", 0.75),
        ("gated_scan forward, triton", (8, 8192, 2560), "float32", None),
        ("linear_scan forward, triton", (8, 8192, 2560), "bfloat16", None),
        ("gated_scan forward, triton", (1, 9, 8), "bfloat16", None),
    ],
)
def test_targets(name: str, shape: tuple[int, int, int], dtype: str, limit: float | None) -> None:
    found = device_target(name, shape, dtype)
    assert (None if found is None else found.limit) == limit


def test_the_inputs_are_in_the_dtype() -> None:
    arrays = benchmark_scans.inputs("gated_scan", (1, 2, 3), torch.bfloat16, 0)
    assert [x.dtype for x in arrays] == [torch.bfloat16] * 3 + [torch.float32]
