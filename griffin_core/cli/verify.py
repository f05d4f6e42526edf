"""``griffin verify``: the conformance kit as a command."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from griffin_core.cli.compare import compare_checkpoints
from griffin_core.cli.console import Output, console

if TYPE_CHECKING:
    from griffin_core.testing.report import Report

_COLOURS = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def verify(
    *,
    backend: str | None = None,
    kernel: str | None = None,
    op: str | None = None,
    device: str | None = None,
    profile: str = "quick",
    seed: int = 0,
    checkpoint: str | None = None,
    against: str | None = None,
    config: str | None = None,
    no_logits: bool = False,
    json: bool = False,
) -> int:
    """Judge a backend, a kernel or your own function against the float64 reference, or compare two checkpoints.

    Without --kernel every kernel of the backend is judged, and the laws of whole models on tiny ones. A function of
    your own is named module:attribute (this folder is on the path); it takes the backend's arrays:
    fn(x[b t d], log_a[b t d], h0 float32 [b d] or None, reset bool [b t] or None) -> (y[b t d], h float32 [b d]).

    With --checkpoint and --against, two checkpoints of any formats are compared instead: tensor by tensor under their
    canonical names, then their logits on random tokens through the backend, in float32.

    Exit code 0: all holds. 1: a property fails; the shrunk case and code that shows it again are printed.

    Args:
        backend: Whose arrays and kernels; GRIFFIN_BACKEND, or the first that is installed.
        kernel: A kernel's name, or module:attribute of a function or a Kernel.
        op: The operation that your function claims to be (linear_scan), or the only one to judge.
        device: Where the backend's arrays are made, cuda say; else its own default.
        profile: How many cases are drawn: quick, ci or thorough.
        seed: Seed of the draws; equal seeds draw equal cases.
        checkpoint: A checkpoint to compare.
        against: The checkpoint that it should equal.
        config: A preset's name or a JSON file, for official checkpoints with no config beside them.
        no_logits: Compare weights only.
        json: Print one JSON document instead of a table.
    """
    from griffin_core import registry
    from griffin_core.testing import conformance

    out = Output(json)
    if checkpoint is not None or against is not None or no_logits or config is not None:
        judging = {"--kernel": kernel, "--op": op, "--device": device}
        return compare_checkpoints(out, checkpoint, against, backend, config, not no_logits, seed, judging)
    with _here_on_path(), registry.on_device(backend, device), _spinner() as tell:
        report = conformance.judge(kernel, backend=backend, op=op, profile=profile, seed=seed, progress=tell)
    _show(out, report)
    out.result({**report.to_dict(), "profile": profile, "seed": seed})
    return 0 if report.passed else 1


def _show(out: Output, report: Report) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=report.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("property", "verdict", "cases", "of bound", "note"):
        table.add_column(name, justify="right" if name in ("cases", "of bound") else "left", overflow="fold")
    subject = ""
    for owner, name, status, cases, ratio, note in report.rows():
        if owner != subject:
            table.add_section()
            table.add_row(f"[bold]{escape(owner)}[/]")
            subject = owner
        colour = _COLOURS[status]
        table.add_row(f"  {escape(name)}", f"[{colour}]{status}[/]", cases, ratio, escape(note))
    console(out.stream).print(table)
    if report.failures:
        out.say(report.details())
    counts = report.to_dict()["counts"]
    verdict = "all holds" if report.passed else "it does not hold" if report.failures else "nothing could be judged"
    out.say(f"{verdict}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")


@contextlib.contextmanager
def _here_on_path() -> Iterator[None]:
    """Modules of the current folder can be imported while the command runs."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


@contextlib.contextmanager
def _spinner() -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is judged (nothing when stderr is no terminal)."""
    target = console()
    if not target.is_terminal:
        yield lambda name: None
        return
    with target.status("judging") as status:
        yield lambda name: status.update(f"judging {name}")
