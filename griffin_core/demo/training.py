"""The demo's training: as many steps as fit into the time, measured on this machine first."""

from __future__ import annotations

import inspect
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from griffin_core import registry
from griffin_core.errors import InputError
from griffin_core.protocol import capability
from griffin_core.text.tokenizer import ByteTokenizer
from griffin_core.training import run
from griffin_core.training.recipes import DEMO
from griffin_core.training.spec import TrainSpec

SECONDS = 180.0
"""Time for the steps when none is asked for."""
SLOW_SECONDS = 360.0
"""The most that a slow machine takes for ``ENOUGH_STEPS`` then."""
ENOUGH_STEPS = 1500
"""Steps after which the model is well below both compressors."""
LEAST_STEPS, MOST_STEPS = 20, 20_000
PROBE_STEPS = 5
"""Timed steps; the median counts."""
PROBE_SECONDS = 5.0
"""The probe stops after this long even if fewer steps were taken."""
BUSY_CORES = 1.25
"""A process that gets less than this many cores has no use for a second thread, which would only be waited for."""
WARMUP_SHARE = 0.1
"""Warm-up takes this share of a short run at most."""


@dataclass(frozen=True)
class Probe:
    """What a step costs on this machine now: its seconds, and how many cores it really had."""

    seconds: float
    cores: float


def train(out: Path, backend: str, seconds: float | None, reporter: run.Reporter) -> dict[str, Any]:
    """Train the demo's model.

    Args:
        out: directory of the run, new or empty.
        seconds: time for the steps, see ``steps_for``; reading the text and the last evaluation come on top.

    Returns:
        The run's summary.

    Raises:
        BackendError: the backend cannot train.
        KeyboardInterrupt: the run was interrupted; what it saved stands.
    """
    spec = replace(DEMO, backend=backend)
    found = probe(spec)
    if found.cores < BUSY_CORES and _takes_threads(backend):
        reporter.note(f"a step gets {found.cores:.1f} cores of this machine, so one thread is used")
        spec = replace(spec, threads=1)
        found = probe(spec)
    steps = steps_for(found.seconds, seconds)
    reporter.note(f"a step takes {found.seconds:.2f} s here: {steps} steps, about {steps * found.seconds:.0f} s")
    outcome = run.start(out, with_steps(spec, steps), ByteTokenizer(), reporter)
    if outcome.summary is None:
        raise KeyboardInterrupt
    return outcome.summary


def steps_for(step_seconds: float, seconds: float | None) -> int:
    """How many steps to take.

    Args:
        step_seconds: time of one.
        seconds: time for all; None is ``SECONDS``, or longer on a slow machine until ``ENOUGH_STEPS`` are taken.
    """
    if seconds is None:
        seconds = max(SECONDS, min(SLOW_SECONDS, ENOUGH_STEPS * step_seconds))
    return min(MOST_STEPS, max(LEAST_STEPS, round(seconds / step_seconds)))


def with_steps(spec: TrainSpec, steps: int) -> TrainSpec:
    """The same run with another number of steps; a short run warms up for a share of it only."""
    warmup = min(spec.options.warmup, max(1, int(WARMUP_SHARE * steps)))
    return replace(spec, options=replace(spec.options, steps=steps, warmup=warmup))


def probe(spec: TrainSpec) -> Probe:
    """Median seconds of a step on random tokens, after one that is not counted, and the cores it had."""
    trainer = run.make_trainer(with_steps(spec, LEAST_STEPS))
    batch = _random_batch(spec)
    trainer.step(batch)
    taken: list[float] = []
    busy = -time.process_time()
    while len(taken) < PROBE_STEPS and sum(taken) < PROBE_SECONDS:
        begun = time.perf_counter()
        trainer.step(batch)
        taken.append(time.perf_counter() - begun)
    busy += time.process_time()
    return Probe(statistics.median(taken), busy / sum(taken))


def _takes_threads(backend: str) -> bool:
    """Whether a trainer made now may use another number of threads than the one before it."""
    trainer = capability(backend, registry.load_backend(backend), "Trainer")
    return "threads" in inspect.signature(trainer).parameters and getattr(trainer, "threads_change", True)


def _random_batch(spec: TrainSpec) -> dict[str, np.ndarray]:
    rows = np.random.default_rng(0).integers(0, 256, (spec.batch, spec.length + 1), dtype=np.int32)
    positions = np.broadcast_to(np.arange(spec.length, dtype=np.int32), (spec.batch, spec.length))
    return {"tokens": rows[:, :-1].copy(), "targets": rows[:, 1:].copy(), "positions": positions.copy()}


def check_seconds(seconds: float | None) -> None:
    """Refuse a time that no run can have; None is the default.

    Raises:
        InputError: it is not a positive, finite number.
    """
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InputError(f"--seconds {seconds!r}; expected a positive number, such as 180")
