"""No figure for a wrong kernel: what is to be timed passes a quick conformance run first."""

from __future__ import annotations

from griffin_core import registry, testing
from griffin_core.benchmarks.cases import DEVICE_OPS
from griffin_core.benchmarks.work import Setup
from griffin_core.errors import ConformanceError
from griffin_core.protocol import KERNEL_OPS, Kernel, device_of, example_call


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
    """The kernels at stake: every one of the bare scan, or for a model the named one, else each operation's first.

    Unless one is named, those that cannot run on this machine are left out.
    """
    ops = KERNEL_OPS if path != "scan" else ("linear_scan",) if device_of(setup.module) == "cpu" else DEVICE_OPS
    if registry.requested_kernel(setup.kernel) != registry.AUTO:
        wanted = registry.requested_kernel(setup.kernel)
        return [record for record in registry.kernels(setup.name) if record.op in ops and record.name == wanted]
    found = {op: runnable(setup, op) for op in ops}
    return [record for records in found.values() for record in (records if path == "scan" else records[:1])]


def runnable(setup: Setup, op: str) -> list[Kernel]:
    """The kernels of an operation that can run a prefill of the model here, best first."""
    call = example_call(op, setup.config, device_of(setup.module))
    records = (r for r in registry.kernels(setup.name) if r.op == op and not r.approximate)
    return [record for record in records if record.supports(call) is None]
