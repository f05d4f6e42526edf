"""``griffin demo``."""

from __future__ import annotations

from pathlib import Path

from griffin_core.cli.console import Output


def demo(
    *, out: Path = Path("runs/demo"), seconds: float | None = None, backend: str | None = None, json: bool = False
) -> int:
    """Train a small model on real text, generate from it, verify it; write a report.

    Trains a byte-level Griffin on the documentation of the running Python, compares it with gzip and xz on
    held-out documents, streams a sample, saves and resumes a state, judges the kernels against the reference,
    and converts the checkpoint. Exit code 1 when one of these does not hold.

    Args:
        out: Directory for the run and report.html; an earlier demo there is replaced.
        seconds: How long to train; default 180, or longer on a slow machine. The rest takes about a minute.
        backend: Instead of GRIFFIN_BACKEND; it must be able to train.
        json: Print the report as one JSON document.
    """
    from griffin_core.demo.run import DemoOptions, run

    output = Output(json)
    report = run(DemoOptions(out=out, seconds=seconds, backend=backend), output)
    for failure in report["failures"]:
        output.say(f"FAILED: {failure}")
    verdict = "passed" if report["passed"] else "failed"
    output.say(f"\nThe demo {verdict} after {report['seconds']:.0f} s. The report is {out / 'report.html'}")
    output.result(report)
    return 0 if report["passed"] else 1
