"""Measure one path of one backend: check it, time it beside its floor and its peers, report ratios."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from griffin_core import registry
from griffin_core.benchmarks import entries, machine
from griffin_core.benchmarks.cases import BENCH_110M, DEFAULTS, PATHS, THREADS, Sizes
from griffin_core.benchmarks.entries import FIRST_CALL, Entry, Plan
from griffin_core.benchmarks.gate import require_conformance
from griffin_core.benchmarks.pairing import Timing, interleave, ratio
from griffin_core.benchmarks.report import Report, Row
from griffin_core.benchmarks.work import Setup
from griffin_core.config import GriffinConfig
from griffin_core.errors import BackendError, InputError, nearest
from griffin_core.shapes import DTYPES

MEASURES = {
    "scan": "copy / time",
    "prefill": "time / products",
    "decode": "products / time",
    "train": "time / products",
}
"""What the ratio of a path divides by what; the first is a rate that is reached, the second a cost."""


def measure(
    path: str,
    *,
    config: GriffinConfig = BENCH_110M,
    label: str = "110m",
    backend: str | None = None,
    kernel: str | None = None,
    dtype: str = "float32",
    threads: int = THREADS,
    sizes: Sizes | None = None,
    peers: bool = True,
    told: Callable[[str], None] | None = None,
) -> Report:
    """Time one path.

    Args:
        path: "scan", "prefill", "decode" or "train".
        label: the config's name, for the report.
        backend, kernel: as everywhere; a kernel named here must run.
        dtype: compute dtype.
        threads: for the backend's operators.
        sizes: None takes ``DEFAULTS[path]``.
        peers: whether installed public implementations run beside.
        told: is given a line of progress.

    Raises:
        ConformanceError: a kernel that would be timed fails its quick conformance run.
        InputError: an argument is illegal.
    """
    chosen = _checked(path, dtype, threads, sizes)
    name = registry.choose_backend(backend)
    setup = Setup(name, registry.load_backend(name), config, chosen, dtype, kernel)
    timers = load_timers(name, setup.module)
    standard = dataclasses.replace(chosen, runs=DEFAULTS[path].runs) == DEFAULTS[path]
    judged = name == "torch" and config == BENCH_110M and standard and threads == THREADS and dtype == "float32"
    say = told or _silent
    with timers.threads(threads):
        say("checking the kernels against the reference")
        require_conformance(setup, path)
        say("preparing")
        plan = Plan(setup, timers, judged, peers)
        contenders = entries.ENTRIES[path](plan)
        timings = interleave([entry.contender for entry in contenders], chosen.runs, told=say)
    return Report(
        path=path,
        measures=MEASURES[path],
        rows=tuple(_row(entry, timings) for entry in contenders),
        case={"config": label, "backend": name, "kernel": kernel, "dtype": dtype, **dataclasses.asdict(chosen)},
        machine=machine.machine(timers.versions(), threads),
        notes=(*_notes(path, timers, timings), *plan.notes),
        timings=timings,
    )


def load_timers(name: str, module: ModuleType) -> ModuleType:
    """The backend's ``benchmarks`` module.

    Raises:
        BackendError: it has none.
    """
    where = "griffin_core.benchmarks.numpy_timers" if name == "numpy" else f"{module.__name__}.benchmarks"
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name != where:
            raise
        raise BackendError(
            f"the {name} backend has no {where}; griffin bench needs it to time bare products"
        ) from error


def _checked(path: str, dtype: str, threads: int, sizes: Sizes | None) -> Sizes:
    if path not in PATHS:
        raise InputError(f"unknown benchmark {path!r}; {nearest(path, PATHS)}")
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; {nearest(dtype, DTYPES)}")
    if threads < 1:
        raise InputError(f"threads={threads}; expected at least 1")
    chosen = sizes or DEFAULTS[path]
    for name in ("batch", "tokens", "runs"):
        if getattr(chosen, name) < 1:
            raise InputError(f"{name}={getattr(chosen, name)}; expected at least 1")
    return chosen


def _row(entry: Entry, timings: dict[str, Timing]) -> Row:
    timing = timings[entry.name]
    quotient = None
    if entry.versus is not None:
        base = timings[entry.versus]
        quotient = ratio(base, timing) if entry.rate else ratio(timing, base)
    return Row(name=entry.name, seconds=timing.median, ratio=quotient, note=_work(entry, timing), target=entry.target)


def _work(entry: Entry, timing: Timing) -> str:
    """The work of one unit and the rate at which it was done."""
    parts = []
    if entry.flops:
        parts.append(f"{entry.flops / 1e9:.3g} GFLOP, {entry.flops / timing.median / 1e9:.3g} GFLOP/s")
    if entry.moved:
        parts.append(f"{entry.moved / 1e6:.4g} MB, {entry.moved / timing.median / 1e9:.3g} GB/s")
    if entry.remark:
        parts.append(entry.remark)
    return "; ".join(parts)


def _notes(path: str, timers: Any, timings: dict[str, Timing]) -> tuple[str, ...]:
    notes = []
    if path == "train":
        notes.append(f"first step: {timings['train step'].first:.1f} s; at most {FIRST_CALL:g} s is allowed")
    reason = timers.matrix_units("bfloat16")
    if path in ("prefill", "decode") and reason is not None:
        notes.append(f"bfloat16 rows do not apply: {reason}")
    return tuple(notes)


def _silent(line: str) -> None:
    """Progress that nobody asked for."""
