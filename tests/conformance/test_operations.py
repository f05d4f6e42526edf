"""Every kernel and operation of every backend under test has every property, in float32, bfloat16 and float16."""

from __future__ import annotations

from types import ModuleType

import pytest

from griffin_core import env, registry
from griffin_core.protocol import RECURRENT_OPS, compiles_shapes
from griffin_core.testing import judge
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.report import Record

PROFILE = str(env.read("GRIFFIN_TEST_PROFILE"))
EXCUSES = (
    "has no vjp and the kernel brings none",
    "has no hand-written gradient of local_attention",
)
"""The only reasons for which a property of ours may go unjudged."""
ESSENTIAL = ("reference", "documents", "padding", "packed", "gradient")
"""What `make test` asks of an operation that a compiling backend composes of judged ones; `make prove` asks all."""
ELSEWHERE = ("it needs a TPU", "it needs a GPU")
"""Why a kernel of an accelerator refuses every case on a processor; its own tests judge it interpreted."""


def lent(backend_name: str, backend: ModuleType, op: str) -> bool:
    """Whether a backend's operation is the function of the one whose kernels it runs, which is judged itself.

    Or stands around it, to do something else on a mesh, which has tests of its own.
    """
    owner = registry.kernels_of(backend_name)
    if owner == backend_name:
        return False
    ours, theirs = getattr(backend, op), getattr(registry.load_backend(owner), op)
    return ours is theirs or getattr(ours, "__wrapped__", None) is theirs


@pytest.mark.parametrize("op", OPERATIONS)
def test_operation(backend_name: str, backend: ModuleType, op: str) -> None:
    if lent(backend_name, backend, op):
        return
    composed = not any(kernel.op == op for kernel in backend.KERNELS) and op in RECURRENT_OPS
    few = ESSENTIAL if composed and compiles_shapes(backend) else None
    report = judge(None, backend=backend_name, op=op, profile=PROFILE, properties=few)
    assert report.passed, str(report)
    names = {record.subject for record in report.records}
    assert len(names) >= max(1, sum(kernel.op == op and not kernel.approximate for kernel in backend.KERNELS))
    here = [record for record in report.records if not _elsewhere(record)]
    assert here
    reasons = [record.reason for record in here if record.status == "skipped"]
    assert [reason for reason in reasons if not any(excuse in reason for excuse in EXCUSES)] == []
    assert all(record.refused == {} for record in here)


def _elsewhere(record: Record) -> bool:
    return any(why in reason for reason in (record.reason, *record.refused) for why in ELSEWHERE)


@pytest.mark.prove
@pytest.mark.parametrize("op", OPERATIONS)
def test_operation_thoroughly(backend_name: str, backend: ModuleType, op: str) -> None:
    if lent(backend_name, backend, op):
        return
    report = judge(None, backend=backend_name, op=op, profile="thorough", seed=1)
    assert report.passed, str(report)
