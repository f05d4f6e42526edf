"""``griffin bench``: times beside bare matrix products or a copy, and beside peers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from griffin_core.benchmarks import Report, Sizes
    from griffin_core.cli.console import Output


def bench(
    path: Literal["scan", "prefill", "decode", "train"],
    /,
    *,
    preset: str | None = None,
    config: str | None = None,
    backend: str | None = None,
    kernel: str | None = None,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    threads: int = 2,
    batch: int | None = None,
    tokens: int | None = None,
    context: int | None = None,
    width: int | None = None,
    runs: int | None = None,
    peers: Literal["auto", "none"] = "auto",
    json: bool = False,
) -> int:
    """Time scans, prefill, decoding or training beside what bounds them.

    Every figure is a ratio to the model's own matrix products (or, for the scan, to a copy of the same bytes),
    timed in turn in the same run. A kernel that fails a quick conformance run is not timed.

    Args:
        path: what to time.
        preset: model to time: 110m (the benchmark's own, when nothing is named) or a preset.
        config: JSON file of a config, instead of a preset.
        backend: backend to time; else GRIFFIN_BACKEND, else the first installed.
        kernel: kernel to time; it runs or the command fails.
        device: where to compute, cuda say; else the backend's own default.
        dtype: compute dtype.
        threads: threads of the backend's operators.
        batch: rows.
        tokens: tokens per row: of the prompt, the training sequence, the scan, or decoded per call.
        context: tokens already seen when decoding starts.
        width: channels of the bare scan.
        runs: rounds; each times everything once.
        peers: auto runs the public implementations that are installed beside ours.
        json: print one JSON document with every round's seconds.
    """
    from griffin_core import registry
    from griffin_core.benchmarks import DEFAULTS, measure, resolve_config
    from griffin_core.cli.console import Output

    output = Output(json)
    label, chosen = resolve_config(preset, config)
    sizes = _changed(DEFAULTS[path], batch=batch, tokens=tokens, context=context, width=width, runs=runs)
    with registry.on_device(backend, device), _progress() as told:
        options: dict[str, Any] = {"backend": backend, "kernel": kernel, "dtype": dtype, "threads": threads}
        report = measure(path, config=chosen, label=label, sizes=sizes, peers=peers == "auto", told=told, **options)
    _show(output, report)
    output.result(report.to_dict())
    return 0


def _changed(sizes: Sizes, **given: int | None) -> Sizes:
    """The sizes with those that were given."""
    return dataclasses.replace(sizes, **{name: value for name, value in given.items() if value is not None})


def _show(output: Output, report: Report) -> None:
    columns, rows = report.table()
    case, machine = report.case, report.machine
    sizes = ", ".join(f"{k} {case[k]}" for k in ("batch", "tokens", "context", "width") if case[k])
    model = "" if report.path == "scan" else f"{case['config']}, "
    output.table(columns, rows, title=f"{report.path}: {model}{sizes}, {case['dtype']}, {machine['threads']} threads")
    for note in report.notes:
        output.say(note)
    output.say(", ".join(f"{name} {value}" for name, value in machine.items()))


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A status line on stderr while the rounds run; nothing when stderr is not a terminal."""
    from griffin_core.cli.console import console

    target = console()
    if not target.is_terminal:
        yield lambda line: None
        return
    with target.status("starting") as status:
        yield status.update
