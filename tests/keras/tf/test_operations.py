"""Every operation has every property of the conformance kit: eagerly, composed, and compiled by XLA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

from griffin_core import env, registry
from griffin_core.protocol import Kernel
from griffin_core.testing.cases import SHORT_CORNERS
from griffin_core.testing.conformance import subjects_of
from griffin_core.testing.judging import Effort, choose, judge_subject
from griffin_core.testing.operations import OPERATIONS
from griffin_core.testing.subjects import Subject, from_backend
from griffin_core.testing.trial import Trial

PROFILE = str(env.read("GRIFFIN_TEST_PROFILE"))
EXCUSE = "has no hand-written gradient of local_attention"
FEW = SHORT_CORNERS[1:4] + SHORT_CORNERS[5:8]
"""Carried states, padding, blocks, bfloat16 and float16, decays of 1 and 0."""


def refused(subjects: Sequence[Subject], effort: Effort, names: Sequence[str] | None = None) -> list[str]:
    """What does not hold, and what was not asked without an excuse."""
    records = [record for subject in subjects for record in judge_subject(subject, effort, names)]
    assert records
    bad = [r for r in records if r.status == "failed" or (r.status == "skipped" and EXCUSE not in r.reason)]
    return [f"{record.subject}: {record.property}: {record.reason}\n{record.reproduce}" for record in bad]


@pytest.mark.parametrize("op", OPERATIONS)
def test_operation(engine: ModuleType, op: str) -> None:
    assert refused(list(subjects_of(None, "keras", engine, op)), Effort(PROFILE)) == []


@pytest.mark.prove
@pytest.mark.parametrize("op", OPERATIONS)
def test_operation_thoroughly(engine: ModuleType, op: str) -> None:
    assert refused(list(subjects_of(None, "keras", engine, op)), Effort("thorough", seed=1)) == []


def _known(op: str, name: str) -> bool:
    """Whether the reference has it; the gradient of attention is compared in test_attention.py."""
    return name != "gradient" or OPERATIONS[op].gradient is not None


def plain_scan(x: tf.Tensor, log_a: tf.Tensor, h0: Any, reset: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Row after row; TensorFlow differentiates it."""
    h = tf.zeros_like(x[:, 0]) if h0 is None else h0
    rows = []
    for t in range(x.shape[1]):
        kept = tf.exp(log_a[:, t]) * h
        kept = kept if reset is None else tf.where(reset[:, t, None], 0.0, kept)
        h = kept + x[:, t]
        rows.append(h)
    return tf.stack(rows, axis=1), h


def test_gated_scan_composed_around_a_kernel_of_somebody_else(
    engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Kernel("linear_scan", "mine", plain_scan)
    monkeypatch.setitem(registry._kernels, "keras", (*engine.KERNELS, mine))
    subject = from_backend(OPERATIONS["gated_scan"], "keras", engine, mine)
    names = ["reference", "documents", "padding", "reset", "inputs"]
    assert refused([subject], Effort("quick"), names) == []
    for case in [case for case in FEW if case.decay not in ("one", "zero")]:  # there TensorFlow's own gradient is NaN
        choose(["gradient"])[0].check(Trial(subject, case))


@pytest.mark.parametrize(
    ("op", "name"), [(op, name) for op in OPERATIONS for name in ("reference", "gradient") if _known(op, name)]
)
def test_compiled_by_xla(engine: ModuleType, op: str, name: str) -> None:
    """The kit's bounds hold inside ``tf.function(jit_compile=True)`` too."""

    def compiled_vjp(f: Any, inputs: Any, cotangents: Any) -> Any:
        return tf.function(lambda i, c: engine.vjp(f, i, c), jit_compile=True, autograph=False)(inputs, cotangents)

    (subject,) = subjects_of(None, "keras", engine, op)
    arrays = SimpleNamespace(from_numpy=engine.from_numpy, to_numpy=engine.to_numpy, vjp=compiled_vjp)
    compiled = tf.function(subject.function, jit_compile=True, autograph=False)
    for case in FEW:
        choose([name])[0].check(Trial(replace(subject, arrays=arrays, function=compiled), case))
