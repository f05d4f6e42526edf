"""One property on one case: the judged thing, its inputs cut and changed, and comparisons that keep score."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from griffin_core.checks import PAD
from griffin_core.reference.numeric import default_positions
from griffin_core.shapes import Array
from griffin_core.testing.cases import Case
from griffin_core.testing.inputs import Inputs, carried_length
from griffin_core.testing.subjects import Subject
from griffin_core.testing.tolerance import Ledger, assert_close, assert_same, rounding

Outputs = dict[str, Array]


@dataclass(frozen=True)
class Trial:
    """What a property function gets."""

    subject: Subject
    case: Case
    ledger: Ledger = field(default_factory=Ledger)

    def replace(self, **changes: object) -> Trial:
        """The same trial on a changed case."""
        return Trial(self.subject, self.case.replace(**changes), self.ledger)

    @property
    def call(self) -> str:
        """How messages name this call."""
        return f"{self.subject.op.name} of {self.case!r}"

    def inputs(self) -> Inputs:
        """The arrays of the case."""
        return self.subject.op.make(self.case)

    def run(self, inputs: Inputs, layout: str = "contiguous") -> Outputs:
        """The judged function's outputs."""
        return self.subject.run(inputs, layout)

    def dtypes(self) -> dict[str, str]:
        """The dtype that each output must have."""
        known = {"h": "float32", "cache_position": "int32"}
        names = self.subject.op.name_outputs([_Any()] * len(self.subject.op.outputs))
        return {name: known.get(name, self.case.dtype) for name in names}

    def equals_reference(self, got: Outputs, inputs: Inputs) -> None:
        """Every output is within its bound of the reference."""
        op = self.subject.op
        expected, bounds = op.reference(inputs), op.bounds(inputs)
        self._compare(comparable(got), expected, bounds, "", extra=1)

    def agree(self, got: Outputs, other: Outputs, inputs: Inputs, about: str) -> None:
        """Two evaluations of the same truth: each within its bound of it, so within twice the bound of each other."""
        bounds = self.subject.op.bounds(inputs)
        wide = {name: value.astype(np.float64) for name, value in comparable(other).items()}
        self._compare(comparable(got), wide, {n: 2.0 * b for n, b in bounds.items()}, about, extra=2)

    def _compare(self, got: Outputs, expected: Outputs, bounds: Outputs, about: str, extra: int) -> None:
        dtypes = self.dtypes()
        for name, truth in expected.items():
            if name not in got:
                raise AssertionError(f"{name} is missing from the outputs; in {self.call}")
            if got[name].dtype.kind in "iu":
                self.same({name: got[name]}, {name: truth.astype(got[name].dtype)}, about)
                continue
            bound = bounds[name] + (extra - 1) * rounding(truth, bounds[name], dtypes[name])
            what = f"{name} {about}".strip()
            assert_close(got[name], truth, bound, dtype=dtypes[name], what=what, call=self.call, ledger=self.ledger)

    def uncertain(self, got: Outputs, inputs: Inputs) -> Outputs:
        """How far these outputs may be from the truth: the bound, and the rounding of their dtype."""
        bounds, dtypes = self.subject.op.bounds(inputs), self.dtypes()
        return {n: bounds[n] + rounding(got[n].astype(np.float64), bounds[n], dtypes[n]) for n in got}

    def near(self, got: Outputs, expected: Outputs, slack: Outputs, inputs: Inputs, about: str) -> None:
        """Within the bound of what was computed here and the ``slack`` of what it is compared with."""
        bounds = self.subject.op.bounds(inputs)
        self._compare(got, expected, {n: bounds[n] + slack[n] for n in expected}, about, extra=1)

    def same(self, got: Outputs, expected: Outputs, about: str) -> None:
        """Exactly equal values."""
        for name, value in expected.items():
            assert_same(got[name], value, what=f"{name} {about}".strip(), call=self.call)

    # ---- changing inputs -------------------------------------------------------------------------------

    def marked(self, inputs: Inputs) -> Inputs:
        """The same inputs with document starts written out, where None stood for them."""
        op = self.subject.op
        if inputs[op.marks] is not None:
            return inputs
        rows, time = inputs[op.timed[0]].shape[:2]
        if op.marks == "reset":
            return {**inputs, "reset": np.zeros((rows, time), bool)}
        fresh = all(inputs[name] is None for name, _ in op.carries)
        marks = np.array(default_positions(inputs[op.timed[0]], fresh))
        return {**inputs, op.marks: marks if fresh else marks - 1 + carried_length(self.case)}

    def starting_at(self, inputs: Inputs, k: int) -> Inputs:
        """The same inputs with a document starting at token k of every row (which must be no padding)."""
        inputs = self.marked(inputs)
        marks = inputs[self.subject.op.marks].copy()
        if marks.dtype == bool:
            marks[:, k] = True
        for row in marks if marks.dtype != bool else ():
            for step, t in enumerate(range(k, len(row))):
                if row[t] == PAD or (step and row[t] == 0):
                    break
                row[t] = step
        return {**inputs, self.subject.op.marks: marks}

    def between(self, inputs: Inputs, start: int, stop: int, carry: Outputs | None = None) -> Inputs:
        """Tokens start..stop; the state coming in is the given outputs' (None: what it was)."""
        op = self.subject.op
        cut = {n: None if inputs[n] is None else inputs[n][:, start:stop] for n in (*op.timed, op.marks)}
        states = {} if carry is None else {argument: carry[output] for argument, output in op.carries}
        return {**inputs, **cut, **states}

    def without_state(self, inputs: Inputs) -> Inputs:
        """No state coming in."""
        return {**inputs, **{name: None for name, _ in self.subject.op.carries}}

    def rows(self, inputs: Inputs, rows: slice) -> Inputs:
        """Some rows of the batch."""
        op = self.subject.op
        names = (*op.timed, op.marks, *(name for name, _ in op.carries))
        return {**inputs, **{n: None if inputs[n] is None else inputs[n][rows] for n in names}}

    def poisoned(self, inputs: Inputs, where: tuple[object, ...], state: tuple[object, ...] | None) -> Inputs:
        """NaN and infinity at an index of every array over time, and at one of every state."""
        out = dict(inputs)
        indices = [(name, where) for name in self.subject.op.timed]
        indices += [(name, state) for name, _ in self.subject.op.carries if state is not None]
        for name, index in indices:
            if inputs[name] is not None and inputs[name].dtype.kind not in "iu":
                out[name] = inputs[name].copy()
                part = out[name][index]
                part[...] = np.nan
                part[..., ::2] = -np.inf if name == "log_a" else np.inf
        return out


class _Any(dict[str, object]):
    """Stands for any output when only the names matter."""


def comparable(outputs: Outputs) -> Outputs:
    """Outputs in which cache slots not yet written are 0: their content means nothing."""
    if "cache_position" not in outputs:
        return outputs
    slots = np.arange(outputs["cache_k"].shape[1])
    empty = (slots >= outputs["cache_position"][:, None])[..., None]
    cleared = {
        name: np.where(empty, np.zeros((), outputs[name].dtype), outputs[name]) for name in ("cache_k", "cache_v")
    }
    return {**outputs, **cleared}


def joined(first: Outputs, rest: Outputs) -> Outputs:
    """Outputs of a sequence from those of its two parts."""
    return {**rest, "y": np.concatenate([first["y"], rest["y"]], axis=1)}
