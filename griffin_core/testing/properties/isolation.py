"""Properties across a batch: rows and channels that have nothing to do with each other do not meet."""

from __future__ import annotations

import numpy as np

from griffin_core.testing.trial import Outputs, Trial


def rows(trial: Trial) -> None:
    """A row's result does not depend on the other rows, NaN included, and equals that of the row alone."""
    trial = trial.replace(b=max(2, trial.case.b))
    given = trial.inputs()
    last = trial.case.b - 1
    one = slice(last, last + 1)
    whole = _row(trial.run(given), one)
    others = (slice(0, last),)
    trial.same(_row(trial.run(trial.poisoned(given, others, others)), one), whole, "when other rows hold NaN")
    part = trial.rows(given, one)
    trial.agree(trial.run(part), whole, part, "of the row alone")


def _row(outputs: Outputs, row: slice) -> Outputs:
    return {name: value[row] for name, value in outputs.items()}


def channels(trial: Trial) -> None:
    """NaN and infinity in one channel (or gate block) never reach another."""
    trial = trial.replace(d=max(2, trial.case.d), blocks=max(2, trial.case.blocks))
    given = trial.inputs()
    width = given["x"].shape[-1]
    block = 1 if trial.subject.op.elementwise else width // trial.case.blocks
    first = (trial.case.cut % (width // block)) * block
    bad = (..., slice(first, first + block))
    untouched = np.setdiff1d(np.arange(width), np.arange(first, first + block))
    clean, dirty = trial.run(given), trial.run(trial.poisoned(given, bad, bad))
    kept = {name: value[..., untouched] for name, value in clean.items()}
    about = f"of the other channels when channels {first} to {first + block - 1} hold NaN"
    trial.same({name: value[..., untouched] for name, value in dirty.items()}, kept, about)
