"""``judge`` and its report: any target, every verdict with its reason, and code that shows a failure again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from griffin_core.errors import BackendError, ConfigError, ConformanceError, InputError
from griffin_core.protocol import Kernel, KernelCall
from griffin_core.testing import Case, judge, replay, verify
from griffin_core.testing.broken import controls, scans
from griffin_core.testing.search import JudgedError

FEW = ["reference", "cut", "packed"]


def test_a_function_is_judged() -> None:
    report = judge(controls.linear_scan, backend="numpy", properties=FEW)
    assert report.passed
    assert [(r.property, r.status) for r in report.records] == [
        ("reference", "passed"),
        ("cut", "passed"),
        ("packed", "skipped"),
    ]
    assert 0.0 < report.records[0].ratio < 1.0
    assert report.records[0].cases > 20
    assert "starts" in report.skipped[0].reason


def test_its_gradient_is_skipped_by_name_where_the_backend_has_none() -> None:
    (record,) = judge(controls.linear_scan, backend="numpy", properties=["gradient"]).records
    assert record.status == "skipped"
    assert record.reason == "the numpy backend has no vjp and the kernel brings none"


def test_a_wrong_function_fails_with_a_case_a_reason_and_code() -> None:
    report = judge(scans.late_reset, backend="numpy", properties=["reference", "reset"])
    assert not report.passed
    assert {record.property for record in report.failures} >= {"reset"}
    text = str(report)
    assert "to see it again" in text
    assert "scan" in report.failures[0].reason
    with pytest.raises(ConformanceError, match="late_reset: reset"):
        report.raise_if_failed()


def test_an_exception_is_a_failed_property() -> None:
    def scan(x: Any, log_a: Any, h0: Any, reset: Any) -> Any:
        raise RuntimeError("no such device")

    report = judge(scan, backend="numpy", properties=["reference"])
    assert report.records[0].status == "failed"
    assert report.records[0].reason == "it raised RuntimeError: no such device"


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "it returned NoneType; linear_scan returns (y, h)"),
        ((1, 2, 3), "it returned 3 values; linear_scan returns (y, h)"),
    ],
)
def test_a_wrong_result_is_a_failed_property(result: Any, reason: str) -> None:
    report = judge(lambda x, log_a, h0, reset: result, backend="numpy", properties=["form"])
    assert report.records[0].reason == reason


def test_the_printed_code_shows_the_failure(tmp_path: Path) -> None:
    (record,) = judge("griffin_core.testing.broken.scans:late_reset", backend="numpy", properties=["reset"]).records
    (tmp_path / "again.py").write_text(record.reproduce, encoding="utf-8")
    run = subprocess.run([sys.executable, str(tmp_path / "again.py")], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert record.reason in run.stderr


def test_replay_raises_what_the_property_raises() -> None:
    case = Case(t=2, cut=1)
    replay(controls.linear_scan, "reset", case, backend="numpy")
    with pytest.raises(AssertionError, match="of the document that starts at 1"):
        replay(scans.late_reset, "reset", case, backend="numpy")
    with pytest.raises(JudgedError, match="IndexError"):
        replay(scans.needs_a_token, "empty", Case(), backend="numpy")


def test_a_named_kernel_and_a_whole_operation() -> None:
    named = judge("loop", backend="numpy", properties=["reference"])
    assert [r.subject for r in named.records] == ["linear_scan [loop]"]
    both = judge(None, backend="numpy", op="linear_scan", properties=["reference"])
    assert [r.subject for r in both.records] == ["linear_scan [reference]", "linear_scan [loop]"]


def test_a_kernel_that_refuses_is_reported_not_passed() -> None:
    def supports(call: KernelCall) -> str | None:
        return None if call.shapes["x"][-1] % 2 == 0 else "d is odd"

    kernel = Kernel("linear_scan", "even", controls.linear_scan, controls.linear_scan_vjp, supports)
    (some,) = judge(kernel, backend="numpy", properties=["reference"]).records
    assert some.status == "passed"
    assert some.refused["d is odd"] > 5
    never = Kernel("linear_scan", "never", controls.linear_scan, None, lambda call: "no such device")
    report = judge(never, backend="numpy", properties=["reference"])
    assert report.records[0].status == "skipped"
    assert report.records[0].reason == "every case was refused: no such device"
    assert not report.passed
    with pytest.raises(ConformanceError, match="no property could be judged"):
        report.raise_if_failed()


def test_exact_kernels_are_held_to_bits() -> None:
    """Cutting a sequence may not change a bit of a kernel that declares ``exact``."""

    def tiled(x: Any, log_a: Any, h0: Any, reset: Any) -> Any:
        y, h = controls.linear_scan(x, log_a, h0, reset)
        return y * np.asarray(1 + 2.0**-23 * (x.shape[1] % 2), y.dtype), h

    loose = Kernel("linear_scan", "tiled", tiled)
    exact = Kernel("linear_scan", "tiled", tiled, exact=True)
    assert judge(loose, backend="numpy", properties=["cut"]).passed
    assert not judge(exact, backend="numpy", properties=["cut"]).passed


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        ("nosuch", {}, BackendError, "numpy has no kernel 'nosuch'; known: loop, reference"),
        ("no_such_module:f", {}, InputError, "cannot import 'no_such_module'"),
        ("griffin_core.testing.broken.scans:late_rest", {}, InputError, "did you mean 'late_reset'"),
        ("griffin_core.testing.cases:DECAYS", {}, InputError, "is a tuple; expected a function or a"),
        (controls.linear_scan, {"op": "scan"}, ConfigError, "unknown operation 'scan'; known: conv1d"),
        (controls.linear_scan, {"properties": ["gradients"]}, ConfigError, "did you mean 'gradient'"),
        (controls.linear_scan, {"profile": "slow"}, ConfigError, "unknown profile 'slow'"),
        (Kernel("conv1d", "c", controls.conv1d), {"op": "linear_scan"}, ConfigError, "is a conv1d, not a linear_scan"),
        (3, {}, InputError, "is a int; expected a function, a Kernel or a name"),
    ],
)
def test_wrong_use_is_refused(target: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        judge(target, backend="numpy", **options)
    assert message in str(caught.value)


def test_verify_is_judge() -> None:
    report = verify("griffin_core.testing.broken.controls:linear_scan", backend="numpy", properties=["reference"])
    assert report.passed
    assert json.loads(json.dumps(report.to_dict()))["counts"] == {"passed": 1, "failed": 0, "skipped": 0}
