"""The kit bites: it passes the sound controls, and catches every planted bug by the property that should."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from griffin_core.testing import judge, laws
from griffin_core.testing.broken import BACKENDS, CONTROLS, KERNELS, Broken, BrokenBackend, models
from griffin_core.testing.judging import Effort, judge_property
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.properties import BY_NAME, PROPERTIES
from griffin_core.testing.report import Record
from griffin_core.testing.subjects import from_backend


@pytest.mark.parametrize("kernel", CONTROLS, ids=lambda kernel: kernel.op)
def test_the_control_passes(kernel: object) -> None:
    """First of all: what is right is not refused. (A kit that fails everything catches every bug.)"""
    report = judge(kernel, backend="numpy")  # type: ignore[arg-type]
    assert report.failures == ()
    judged = {record.property for record in report.records if record.status == "passed"}
    assert {record.property for record in report.skipped} == {"packed"}
    assert judged >= {"reference", "cut", "causal", "reset", "gradient", "documents", "inputs", "repeat"}


@pytest.mark.parametrize("broken", KERNELS, ids=lambda broken: broken.kernel.name)
def test_a_broken_kernel_is_caught(broken: Broken) -> None:
    assert broken.about
    record = judge(broken.kernel, backend="numpy", properties=[broken.caught_by]).records[0]
    caught(record)
    raised = "it raised" in record.reason
    assert raised == broken.crashes, record.reason


@pytest.mark.parametrize("broken", BACKENDS, ids=lambda broken: broken.name)
def test_a_broken_backend_is_caught(broken: BrokenBackend) -> None:
    module = models.planted(broken.function, broken.change)
    if broken.caught_by in laws.BY_NAME:
        record = laws.judge_law(laws.BY_NAME[broken.caught_by], "numpy", module, Effort())
    else:
        subject = from_backend(OPERATIONS[broken.function], "numpy", module)
        record = judge_property(subject, BY_NAME[broken.caught_by], Effort())
    caught(record)
    assert "raised" not in record.reason


def caught(record: Record) -> None:
    assert record.status == "failed", f"not caught by {record.property}"
    assert record.case
    assert record.reason
    assert "replay(" in record.reproduce


def test_there_are_enough_bugs_and_no_idle_property() -> None:
    assert len(KERNELS) + len(BACKENDS) >= 25
    assert {broken.caught_by for broken in (*KERNELS, *BACKENDS)} >= {item.name for item in PROPERTIES}


def test_shrunk_cases_are_small() -> None:
    """The reported case is the simplest that shows the bug: here 257 tokens, one row, one channel."""
    first = next(broken for broken in KERNELS if broken.kernel.name == "forgets_at_256")
    record = judge(first.kernel, backend="numpy", properties=["reference"]).records[0]
    assert record.case == "Case(b=1, t=257, d=1)"


def test_a_lost_gradient_is_caught(backend_name: str, backend: ModuleType) -> None:
    """One weight without a gradient, of all the weights of a model, bends the slope along a random direction."""
    if not hasattr(backend, "vjp"):
        pytest.skip(f"the {backend_name} backend has no vjp")

    def vjp(f: Any, inputs: Any, cotangents: Any) -> Any:
        found = list(backend.vjp(f, inputs, cotangents))
        smallest = min(range(len(found)), key=lambda i: backend.to_numpy(found[i]).size)
        found[smallest] = None
        return tuple(found)

    module: Any = SimpleNamespace(**{**vars(backend), "vjp": vjp})
    record = laws.judge_law(laws.BY_NAME["model.gradient"], backend_name, module, Effort())
    caught(record)
    assert "slope along direction" in record.reason
