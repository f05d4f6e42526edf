"""No figure for a wrong kernel: what is to be timed passes a quick conformance run first."""

from __future__ import annotations

from griffin_core import registry, testing
from griffin_core.benchmarks.work import Setup
from griffin_core.errors import ConformanceError
from griffin_core.protocol import KERNEL_OPS, Kernel


def require_conformance(setup: Setup, path: str) -> None:
    """Judge the kernels that ``path`` would run.

    Raises:
        ConformanceError: naming the kernel, the properties that it fails and the shrunk case.
    """
    for kernel in timed_kernels(setup, path):
        report = testing.judge(kernel.name, backend=setup.name, op=kernel.op, profile="quick")
        if not report.passed:
            failed = ", ".join(record.property for record in report.failures) or "every property was skipped"
            first = f" (first on {report.failures[0].case})" if report.failures else ""
            raise ConformanceError(
                f"kernel {kernel.name!r} of {kernel.op} on {setup.name} is not timed: it fails {failed}{first}; "
                f"see griffin verify --backend {setup.name} --kernel {kernel.name}"
            )


def timed_kernels(setup: Setup, path: str) -> list[Kernel]:
    """The kernels at stake: every one of the bare scan, or for a model the named one, else each operation's first."""
    wanted = registry.requested_kernel(setup.kernel)
    ops = ("linear_scan",) if path == "scan" else KERNEL_OPS
    records = [r for r in registry.kernels(setup.name) if r.op in ops and wanted in (registry.AUTO, r.name)]
    if path == "scan" or wanted != registry.AUTO:
        return records
    return [next(r for r in records if r.op == op) for op in ops if any(r.op == op for r in records)]
