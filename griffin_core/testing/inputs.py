"""The arrays of a case, made in NumPy from its seed and kinds. Absent arguments are None."""

from __future__ import annotations

from typing import Any

import numpy as np

from griffin_core.checks import PAD
from griffin_core.shapes import DTYPES, Array
from griffin_core.testing.cases import DECAYS, Case

Inputs = dict[str, Any]
"""Arrays by flat argument name; None where absent, a plain number where an argument is static."""

_OPEN_GATE, _SHUT_GATE = 100.0, -120.0


def generator(case: Case, purpose: int = 0) -> np.random.Generator:
    """Random numbers of a case; another ``purpose`` gives independent ones."""
    return np.random.default_rng([case.seed, purpose])


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, scale: float = 1.0) -> Array:
    """Normal draws, rounded to ``dtype``."""
    return (scale * rng.standard_normal(shape)).astype(DTYPES[dtype])


def document_starts(case: Case, rng: np.random.Generator) -> Array:
    """bool [b t]: tokens that start a document, by the kind ``case.resets``."""
    marks = np.zeros((case.b, case.t), bool)
    if case.resets == "start":
        marks[:, :1] = True
    elif case.resets == "every":
        marks[:] = True
    elif case.resets == "edges":
        near = np.arange(case.t) % 16
        marks[:] = ((near <= 1) | (near == 15)) & (rng.random((case.b, case.t)) < 0.5)
        marks[:, 256:257] = True
    elif case.resets == "random":
        marks[:] = rng.random((case.b, case.t)) < 0.3
    return marks


def positions(case: Case, rng: np.random.Generator) -> Array | None:
    """int32 [b t]: a document goes on when a state comes in, else one starts; the first row ends in padding.

    None where that says nothing that an absent argument does not.
    """
    marks = document_starts(case, rng)
    pads = min(case.pads, case.t)
    if case.resets == "none" and not pads:
        return None
    if not case.carry:
        marks[:, :1] = True
    out = np.empty((case.b, case.t), np.int32)
    position = np.full(case.b, carried_length(case), np.int32)
    for t in range(case.t):
        position = np.where(marks[:, t], 0, position)
        out[:, t] = position
        position = position + 1
    out[0, case.t - pads :] = PAD
    return out


def carried_length(case: Case) -> int:
    """Tokens of the document that the state coming in has seen."""
    return 1 + case.seed % 9 if case.carry else 0


def log_decays(case: Case, rng: np.random.Generator) -> Array:
    """log a [b t d] of the kind ``case.decay``, in the case's dtype."""
    shape = (case.b, case.t, case.d)
    kinds = {kind: _log_decay(kind, rng, shape) for kind in _kinds(case)}
    return _by_channel(case, kinds, case.d).astype(DTYPES[case.dtype])


def _log_decay(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    draw = rng.random(shape)
    if kind == "one":
        return np.zeros(shape)
    if kind == "zero":
        return np.where(draw < 0.5, -np.inf, -0.1)
    if kind == "subnormal":
        return np.where(draw < 0.5, -1e-40, -87.0 - 16.0 * draw)
    return np.log1p(-float(kind) * (0.5 + draw))


def gates(case: Case, rng: np.random.Generator, width: int) -> tuple[Array, Array, Array]:
    """(gate_x offset, gate_a offset, recurrent_param) [d] in float64, so that a is of the kind ``case.decay``."""
    kinds = {kind: np.stack(_gate(kind, rng, width)) for kind in _kinds(case)}
    input_gate, recurrent_gate, param = _by_channel(case, kinds, width)
    return input_gate, recurrent_gate, param


def _gate(kind: str, rng: np.random.Generator, width: int) -> tuple[Array, Array, Array]:
    level = np.ones(width)
    sign = np.where(rng.random(width) < 0.5, -1.0, 1.0)
    if kind == "one":
        return _OPEN_GATE * sign, _SHUT_GATE * level, 0.5 * level
    if kind == "zero":
        return 0.5 * _OPEN_GATE * sign, 0.5 * _OPEN_GATE * level, 20.0 * level
    if kind == "subnormal":
        return 0.5 * _OPEN_GATE * sign, -70.0 * level, -20.0 * level
    softplus = float(kind) / 4.0 * (0.5 + rng.random(width))
    return 0.0 * level, 0.0 * level, np.log(np.expm1(softplus))


def _kinds(case: Case) -> tuple[str, ...]:
    return tuple(kind for kind in DECAYS if kind != "mixed") if case.decay == "mixed" else (case.decay,)


def _by_channel(case: Case, kinds: dict[str, Array], width: int) -> Array:
    """The only kind, or all of them in turn along the channels."""
    chosen = list(kinds.values())
    turn = (np.arange(width) + case.seed) % len(chosen)
    out = chosen[0].copy()
    for index, values in enumerate(chosen):
        out[..., turn == index] = values[..., turn == index]
    return out
