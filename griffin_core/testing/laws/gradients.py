"""The law of gradients: along random directions they are the slope of the reference.

Weights in the backend's own form may be any nesting of dicts and lists, as long as ``load_params`` is linear in
every weight it moves about; then a direction is loaded as weights are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from griffin_core import reference
from griffin_core.shapes import Array
from griffin_core.testing.laws.trial import LawTrial
from griffin_core.testing.laws.truth import FACTOR, PERTURBATIONS, shaker
from griffin_core.testing.tolerance import Mismatch, U

STEP = 1e-5
"""Step of the central differences: their own error is its square, 1e-10."""


def gradient(law: LawTrial) -> None:
    """Gradients with respect to all weights are the slope of the float64 reference along a random direction."""
    law = law.replace(carry=False, dtype="float32")
    given = law.given
    rng = np.random.default_rng([law.case.seed, 40])
    shape = (*given.tokens.shape, given.config.vocab_size)
    cotangent = rng.standard_normal(shape).astype(np.float32)
    direction = {n: (np.abs(x).max() * rng.standard_normal(x.shape)).astype(x.dtype) for n, x in given.params.items()}
    got = _slope(law, cotangent, direction)
    slopes = _reference_slopes(law, cotangent, direction)
    bound = FACTOR * max(abs(other - slopes[0]) for other in slopes[1:]) + U * abs(slopes[0]) + STEP**2
    law.ledger.record(abs(got - slopes[0]) / bound, abs(got - slopes[0]), bound, "slope")
    if not abs(got - slopes[0]) <= bound:
        raise Mismatch(
            f"the gradient's slope along a direction is {got:.9g}, expected {slopes[0]:.9g}; off by "
            f"{abs(got - slopes[0]):.3g}, the bound is {bound:.3g}; in the gradient of {law.call}"
        )


def _slope(law: LawTrial, cotangent: Array, direction: Mapping[str, Array]) -> float:
    """<gradient, direction> as the backend computes it."""
    config, given = law.given.config, law.given
    params = law.params()
    moved = law.ask("load_params", config, direction, dtype="float32")
    tokens, positions = law.native(given.tokens), law.native(given.positions)

    def f(*leaves: Any) -> Any:
        logits, _ = law.module.forward(config, rebuilt(params, iter(leaves)), tokens, positions)
        return logits

    weights = list(leaves_of(params))
    found = law.ask("vjp", f, tuple(weights), (law.native(cotangent),))
    total = 0.0
    for grad, part in zip(found, leaves_of(moved), strict=True):
        if grad is not None:
            total += float((law.ask("to_numpy", grad).astype(np.float64) * law.ask("to_numpy", part)).sum())
    return total


def _reference_slopes(law: LawTrial, cotangent: Array, direction: Mapping[str, Array]) -> list[float]:
    """The reference's slope, and those after perturbations of one roundoff."""
    given = law.given
    taps: list[Callable[[], Callable[[str, Array], Array]]] = [lambda: lambda name, value: value]
    taps += [lambda draw=draw: shaker(law.case, draw) for draw in range(PERTURBATIONS)]  # type: ignore[misc]

    def at(step: float, tap: Callable[[str, Array], Array]) -> float:
        wide = {name: tap(name, value.astype(np.float64)) for name, value in given.params.items()}
        params = {name: value + step * direction[name] for name, value in wide.items()}
        logits, _ = reference.forward(given.config, params, given.tokens, given.positions, tap=tap)
        return float((logits * cotangent).sum())

    return [(at(STEP, make()) - at(-STEP, make())) / (2.0 * STEP) for make in taps]


def leaves_of(tree: Any) -> Iterator[Any]:
    """The arrays of nested dicts, lists and tuples, in order."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from leaves_of(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from leaves_of(value)
    else:
        yield tree


def rebuilt(tree: Any, leaves: Iterator[Any]) -> Any:
    """The same nesting with other arrays."""
    if isinstance(tree, Mapping):
        return {name: rebuilt(value, leaves) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)([rebuilt(value, leaves) for value in tree])
    return next(leaves)
