"""Properties of values: right, well-formed, repeatable, and taken from the inputs alone."""

from __future__ import annotations

import numpy as np

from griffin_core.shapes import DTYPES
from griffin_core.testing.cases import LAYOUTS
from griffin_core.testing.inputs import generator, normal
from griffin_core.testing.placing import TAIL
from griffin_core.testing.tolerance import assert_same, check_finite, check_form
from griffin_core.testing.trial import Trial


def reference(trial: Trial) -> None:
    """Outputs are within the bound of the float64 reference."""
    inputs = trial.inputs()
    trial.equals_reference(trial.run(inputs, trial.case.layout), inputs)


def form(trial: Trial) -> None:
    """Shapes and dtypes are the promised ones, and finite inputs give finite outputs."""
    inputs = trial.inputs()
    got, dtypes = trial.run(inputs), trial.dtypes()
    for name, shape in trial.subject.op.output_shapes(inputs).items():
        check_form(got[name], shape, dtypes[name], name, trial.call)
        check_finite(got[name], name, trial.call)


def inputs(trial: Trial) -> None:
    """No input is written, neither by the forward nor by the backward pass."""
    given = trial.inputs()
    subject = trial.subject
    native = subject.to_native(given)
    subject.call(native)
    if subject.vjp is not None or hasattr(subject.arrays, "vjp"):
        subject.gradient_of(native, cotangents(trial))
    for name, value in given.items():
        if isinstance(value, np.ndarray):
            assert_same(subject.arrays.to_numpy(native[name]), value, what=f"{name} after the call", call=trial.call)


def repeat(trial: Trial) -> None:
    """Two runs give the same bits, gradients included."""
    given = trial.inputs()
    trial.same(trial.run(given), trial.run(given), "of a second run")
    subject = trial.subject
    if subject.op.gradient is not None and (subject.vjp is not None or hasattr(subject.arrays, "vjp")):
        first, second = (subject.gradient(given, cotangents(trial)) for _ in range(2))
        both = {name: value for name, value in second.items() if value is not None}
        trial.same({n: v for n, v in first.items() if v is not None}, both, "gradient of a second run")


def reach(trial: Trial) -> None:
    """Nothing beyond the last token is read: NaN stored behind it changes nothing."""
    given = trial.inputs()
    trial.agree(trial.run(given, TAIL), trial.run(given), given, "with NaN stored behind the last token")


def layout(trial: Trial) -> None:
    """Inputs may be views: slices, transposed or strided arrays give what contiguous ones give."""
    given = trial.inputs()
    whole = trial.run(given)
    for kind in LAYOUTS[1:]:
        trial.agree(trial.run(given, kind), whole, given, f"with {kind} inputs")


def linear(trial: Trial) -> None:
    """Linear in (x, h0): twice the inputs give twice the outputs, sums give sums."""
    given, rng = trial.inputs(), generator(trial.case, purpose=2)
    first, second = dict(given), dict(given)
    for name in ("x", "h0"):  # multiples of 1/16 below 4: their sums are exact in every dtype
        if given[name] is not None:
            shape, dtype = given[name].shape, given[name].dtype
            first[name], second[name] = ((rng.integers(-63, 64, shape) / 16).astype(dtype) for _ in range(2))
    total = {**given, **{n: None if given[n] is None else (first[n] + second[n]) for n in ("x", "h0")}}
    double = {**given, **{n: None if given[n] is None else (first[n] + first[n]) for n in ("x", "h0")}}
    one, two = trial.run(first), trial.run(second)
    summed = {n: one[n].astype(np.float64) + two[n].astype(np.float64) for n in one}
    doubt = [trial.uncertain(got, part) for got, part in ((one, first), (two, second))]
    trial.near(trial.run(total), summed, {n: doubt[0][n] + doubt[1][n] for n in one}, total, "of a sum")
    twice = {n: 2.0 * one[n].astype(np.float64) for n in one}
    trial.near(trial.run(double), twice, {n: 2.0 * doubt[0][n] for n in one}, double, "of 2 x")


def long(trial: Trial) -> None:
    """4096 steps at 1 - a = 1e-5 stay within the bound: the carry is float32."""
    reference(trial)


def wide(trial: Trial) -> None:
    """More elements than a 16-bit offset can address."""
    reference(trial)


def empty(trial: Trial) -> None:
    """No tokens: no outputs, and the state passes through."""
    given = trial.between(trial.inputs(), 0, 0)
    trial.equals_reference(trial.run(given), given)


def cotangents(trial: Trial) -> dict[str, np.ndarray]:
    """Normal draws for every output, in its dtype."""
    rng = generator(trial.case, purpose=3)
    shapes, dtypes = trial.subject.op.output_shapes(trial.inputs()), trial.dtypes()
    return {name: normal(rng, shape, dtypes[name]) for name, shape in shapes.items() if dtypes[name] in DTYPES}
