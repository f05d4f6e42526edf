"""The law of gradients: along random directions they are the slope of the reference.

Weights in the backend's own form may be any nesting of dicts and lists, as long as ``load_params`` is linear in
every weight it moves about; then a direction is loaded as weights are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from griffin_core import reference
from griffin_core.reference.numeric import no_tap, wide
from griffin_core.shapes import Array
from griffin_core.testing.laws.trial import LawTrial
from griffin_core.testing.laws.truth import FACTOR, shaker
from griffin_core.testing.tolerance import U, assert_close

STEP = 1e-5
"""Step of the central differences: their own error is its square, 1e-10."""
DIRECTIONS, DRAWS = 3, 4
"""Directions in the space of weights, and perturbations of each: the bound is the largest of all twelve changes."""


def gradient(law: LawTrial) -> None:
    """Gradients with respect to all weights are the slopes of the float64 reference along random directions."""
    law = law.replace(carry=False, dtype="float32")
    given = law.given
    rng = np.random.default_rng([law.case.seed, 40])
    shape = (*given.tokens.shape, given.config.vocab_size)
    cotangent = rng.standard_normal(shape).astype(np.float32)
    directions = [
        {name: (np.abs(x).max() * rng.standard_normal(x.shape)).astype(x.dtype) for name, x in given.params.items()}
        for _ in range(DIRECTIONS)
    ]
    got = _slopes(law, cotangent, directions)
    shaken = np.array([[_reference_slope(law, cotangent, d, draw) for d in directions] for draw in range(DRAWS)])
    truth = np.array([_reference_slope(law, cotangent, direction, None) for direction in directions])
    bound = FACTOR * np.abs(shaken - truth).max() + U * np.abs(truth).max() + STEP**2
    assert_close(
        got.astype(np.float64),
        truth,
        bound,
        dtype="float64",
        what="the gradient's slope along direction",
        call=f"the gradient of {law.call}",
        ledger=law.ledger,
    )


def _slopes(law: LawTrial, cotangent: Array, directions: Sequence[Mapping[str, Array]]) -> Array:
    """<gradient, direction> for each direction, as the backend computes it."""
    config, given = law.given.config, law.given
    params = law.params()
    tokens, positions = law.native(given.tokens), law.native(given.positions)

    def f(*leaves: Any) -> Any:
        logits, _ = law.module.forward(config, rebuilt(params, iter(leaves)), tokens, positions)
        return logits

    found = law.ask("vjp", f, tuple(leaves_of(params)), (law.native(cotangent),))
    gradients = [None if grad is None else law.ask("to_numpy", grad).astype(np.float64) for grad in found]
    slopes = []
    for direction in directions:
        parts = leaves_of(law.ask("load_params", config, direction, dtype="float32"))
        pairs = zip(gradients, parts, strict=True)
        slopes.append(sum(float((g * law.ask("to_numpy", part)).sum()) for g, part in pairs if g is not None))
    return np.array(slopes)


def _reference_slope(law: LawTrial, cotangent: Array, direction: Mapping[str, Array], draw: int | None) -> float:
    """The reference's slope by central differences; with ``draw``, after a perturbation of one roundoff."""
    given = law.given

    def at(step: float) -> float:
        tap = no_tap if draw is None else shaker(law.case, draw)
        params = {name: tap(name, wide(x)) + step * direction[name] for name, x in given.params.items()}
        logits, _ = reference.forward(given.config, params, given.tokens, given.positions, tap=tap)
        return float((logits * cotangent).sum())

    return (at(STEP) - at(-STEP)) / (2.0 * STEP)


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
