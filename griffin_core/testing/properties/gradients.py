"""Gradients equal the reference's hand-written vector-Jacobian products."""

from __future__ import annotations

import numpy as np

from griffin_core.testing.cases import Case
from griffin_core.testing.properties.values import cotangents
from griffin_core.testing.subjects import Subject
from griffin_core.testing.tolerance import Mismatch, assert_close, dtype_name
from griffin_core.testing.trial import Trial


def gradient(trial: Trial) -> None:
    """Gradients for drawn cotangents, the last state's among them, are within the bound of the reference's."""
    inputs, seeds = trial.inputs(), cotangents(trial)
    op = trial.subject.op
    expected, bounds = op.reference_gradient(inputs, seeds), op.gradient_bounds(inputs, seeds)
    got = trial.subject.gradient(inputs, seeds, trial.case.layout)
    for name, truth in expected.items():
        found = got[name]
        if found is None:
            raise Mismatch(f"the gradient of {name} is missing (None); in the gradient of {trial.call}")
        assert_close(
            found,
            truth,
            bounds[name],
            dtype=dtype_name(inputs[name].dtype),
            what=f"the gradient of {name}",
            call=f"the gradient of {trial.call}",
            ledger=trial.ledger,
        )


def no_gradient(subject: Subject) -> str | None:
    """Why the gradient cannot be judged, or None when it can."""
    if subject.op.gradient is None:
        return f"the reference has no hand-written gradient of {subject.op.name}; the model's gradient covers it"
    if subject.vjp is None and not hasattr(subject.arrays, "vjp"):
        return f"the {subject.backend} backend has no vjp and the kernel brings none"
    if subject.vjp is not None:
        return None
    trial = Trial(subject, Case(t=3, d=2, decay="1e-1"))
    found = subject.gradient(trial.inputs(), cotangents(trial))
    reached = [name for name, value in found.items() if value is not None and np.any(value)]
    return None if reached else "it is not differentiable: no gradient reaches any input"
