"""The demo's training: as many steps as fit into the time, measured on this machine first."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from griffin_core.errors import InputError
from griffin_core.text.tokenizer import ByteTokenizer
from griffin_core.training import run
from griffin_core.training.recipes import DEMO
from griffin_core.training.spec import TrainSpec

PROBE_STEPS = 5
"""Timed steps; the median counts."""
PROBE_SECONDS = 10.0
"""The probe stops after this long even if fewer steps were taken."""
LEAST_STEPS, MOST_STEPS = 20, 20_000
WARMUP_SHARE = 0.1
"""Warm-up takes this share of a short run at most."""


def train(out: Path, backend: str, seconds: float, reporter: run.Reporter) -> dict[str, Any]:
    """Train the demo's model for about ``seconds``.

    Args:
        out: directory of the run, new or empty.
        seconds: time for the steps; reading the text and the last evaluation come on top.

    Returns:
        The run's summary.

    Raises:
        BackendError: the backend cannot train.
        KeyboardInterrupt: the run was interrupted; what it saved stands.
    """
    spec = replace(DEMO, backend=backend)
    step_seconds = probe(spec)
    steps = min(MOST_STEPS, max(LEAST_STEPS, int(seconds / step_seconds)))
    reporter.note(f"one step takes {step_seconds:.3f} s here, so {steps} steps fill {seconds:.0f} s")
    outcome = run.start(out, with_steps(spec, steps), ByteTokenizer(), reporter)
    if outcome.summary is None:
        raise KeyboardInterrupt
    return outcome.summary


def with_steps(spec: TrainSpec, steps: int) -> TrainSpec:
    """The same run with another number of steps; a short run warms up for a share of it only."""
    warmup = min(spec.options.warmup, max(1, int(WARMUP_SHARE * steps)))
    return replace(spec, options=replace(spec.options, steps=steps, warmup=warmup))


def probe(spec: TrainSpec) -> float:
    """Median seconds of a step on random tokens, after one that is not counted."""
    trainer = run.make_trainer(with_steps(spec, LEAST_STEPS))
    batch = _random_batch(spec)
    trainer.step(batch)
    taken: list[float] = []
    while len(taken) < PROBE_STEPS and sum(taken) < PROBE_SECONDS:
        begun = time.perf_counter()
        trainer.step(batch)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def _random_batch(spec: TrainSpec) -> dict[str, np.ndarray]:
    rows = np.random.default_rng(0).integers(0, 256, (spec.batch, spec.length + 1), dtype=np.int32)
    positions = np.broadcast_to(np.arange(spec.length, dtype=np.int32), (spec.batch, spec.length))
    return {"tokens": rows[:, :-1].copy(), "targets": rows[:, 1:].copy(), "positions": positions.copy()}


def check_seconds(seconds: float) -> None:
    """Refuse a time that no run can have.

    Raises:
        InputError: it is not a positive, finite number.
    """
    if not 0 < seconds < float("inf"):
        raise InputError(f"--seconds {seconds!r}; expected a positive number, such as 180")
