"""The model of a case, and the truth about it: float64 logits and states, and how far a right backend may be off.

The bound of a whole model is 4 times the largest change that random perturbations of one roundoff, of every weight
and every activation, make in the reference. What is float32 on every backend (from the gates' sigmoids to the
state) is perturbed by float32's roundoff, the rest by the compute dtype's.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from griffin_core import reference
from griffin_core.config import GriffinConfig
from griffin_core.layouts.initialise import init_params
from griffin_core.layouts.states import POSITION
from griffin_core.shapes import DTYPES, UNIT_ROUNDOFF, Array
from griffin_core.testing.cases import MODEL_SIZES, MODELS, Case, ModelCase
from griffin_core.testing.inputs import document_starts
from griffin_core.testing.tolerance import U

FACTOR = 4.0
PERTURBATIONS = 3
_FLOAT32 = ("input_gate", "recurrent_gate", "log_a", "a", "scan_input", "recurrent_param")


@dataclass(frozen=True)
class Setting:
    """A model and its inputs.

    Attributes:
        params: canonical weights, already rounded to the case's dtype (the decay parameter stays float32).
        seen: int32 [b p], tokens before the state that comes in (p = 0 without one).
        tokens: int32 [b t].
        positions: int32 [b t], or None where one document goes on.
        capacity: of the state.
    """

    case: ModelCase
    config: GriffinConfig
    params: Mapping[str, Array]
    seen: Array
    tokens: Array
    positions: Array | None
    capacity: int


@dataclass(frozen=True)
class Truth:
    """Float64 logits [b t v] and canonical state, and the largest error that each may have."""

    logits: Array
    state: Mapping[str, Array]
    logits_bound: float
    state_bounds: Mapping[str, float]


@functools.lru_cache(maxsize=64)
def setting(case: ModelCase) -> Setting:
    """The model and inputs of a case; cached, so that laws on one case share them. Treat the arrays as read-only."""
    config = GriffinConfig(**MODEL_SIZES, **MODELS[case.model])
    rng = np.random.default_rng([case.seed, 10])
    length = 1 + case.seed % 4 if case.carry else 0
    seen = rng.integers(0, config.vocab_size, (case.b, length)).astype(np.int32)
    tokens = rng.integers(0, config.vocab_size, (case.b, case.t)).astype(np.int32)
    return Setting(
        case, config, weights(config, case), seen, tokens, _positions(case, length, rng), length + 4 * case.t + 8
    )


@functools.lru_cache(maxsize=64)
def truth(case: ModelCase) -> Truth:
    """The truth about a case's own tokens."""
    return evaluate(setting(case))


def weights(config: GriffinConfig, case: ModelCase) -> dict[str, Array]:
    """Weights with no zeros anywhere, so that every bias and scale counts."""
    params = init_params(config, case.seed)
    for name, value in params.items():
        if name.endswith("recurrent_param"):
            continue
        rng = np.random.default_rng([case.seed, zlib.crc32(name.encode())])
        noise = 0.0 if value.any() else 0.3 * rng.standard_normal(value.shape)
        params[name] = (value + noise).astype(DTYPES[case.dtype])
    return params


def evaluate(given: Setting, tokens: Array | None = None, positions: Array | None = None) -> Truth:
    """The truth about other tokens and positions of a setting (None: its own)."""
    changed = tokens is not None
    tokens = given.tokens if tokens is None else tokens
    positions = positions if changed else given.positions
    logits, state = _run(given, given.params, tokens, positions, lambda name, value: value)
    changes, moves = 0.0, dict.fromkeys(state, 0.0)
    for draw in range(PERTURBATIONS):
        tap = shaker(given.case, draw)
        params = {name: tap(name, value.astype(np.float64)) for name, value in given.params.items()}
        other, other_state = _run(given, params, tokens, positions, tap)
        changes = max(changes, _distance(other, logits))
        moves = {name: max(moves[name], _distance(other_state[name], state[name])) for name in state}
    floor = U * float(np.abs(logits).max(initial=0.0))
    bounds = {name: FACTOR * move + U * float(np.abs(state[name]).max(initial=0.0)) for name, move in moves.items()}
    return Truth(logits, state, FACTOR * changes + floor, bounds)


def _run(
    given: Setting,
    params: Mapping[str, Array],
    tokens: Array,
    positions: Array | None,
    tap: Callable[[str, Array], Array],
) -> tuple[Array, dict[str, Array]]:
    state: dict[str, Array] | None = reference.init_state(given.config, len(tokens), given.capacity)
    if given.seen.shape[1]:
        _, state = reference.forward(given.config, params, given.seen[: len(tokens)], None, state, tap=tap)
    logits, state = reference.forward(given.config, params, tokens, positions, state, tap=tap)
    return logits, reference.dump_state(given.config, state or {})


def shaker(case: ModelCase, draw: int) -> Callable[[str, Array], Array]:
    """A tap that multiplies each number by 1 + u or 1 - u, at random."""
    rng = np.random.default_rng([case.seed, 11, draw])

    def tap(name: str, value: Array) -> Array:
        u = U if name.rpartition(".")[2] in _FLOAT32 else UNIT_ROUNDOFF[case.dtype]
        shaken: Array = value * (1.0 + u * (2.0 * rng.integers(0, 2, value.shape) - 1.0))
        return shaken

    return tap


def _distance(left: Array, right: Array) -> float:
    return float(np.abs(left.astype(np.float64) - right.astype(np.float64)).max(initial=0.0))


def _positions(case: ModelCase, length: int, rng: np.random.Generator) -> Array | None:
    if case.documents == "none":
        return None
    marks = document_starts(Case(b=case.b, t=case.t, resets=case.documents), rng)
    if not length:
        marks[:, :1] = True
    out = np.empty((case.b, case.t), np.int32)
    position = np.full(case.b, length, np.int32)
    for t in range(case.t):
        position = np.where(marks[:, t], 0, position)
        out[:, t] = position
        position = position + 1
    return out


def explicit(given: Setting) -> Array:
    """The positions, written out where None stands for them."""
    if given.positions is not None:
        return given.positions
    steps = given.seen.shape[1] + np.arange(given.case.t, dtype=np.int32)
    return np.broadcast_to(steps, given.tokens.shape).astype(np.int32)


def state_dtypes(given: Setting, state: Mapping[str, Array]) -> dict[str, str]:
    """The dtype each state array must have on a backend that computes in the case's dtype."""
    known = {POSITION: "int32"}
    return {name: known.get(name, "float32" if name.endswith(".h") else given.case.dtype) for name in state}
