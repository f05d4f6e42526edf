"""Laws of ``decode``: it is the loop of one forward step and one draw, and leaves inactive rows alone.

A token may differ only where the reference's sampler itself cannot tell: when scores moved by no more than the
bound give another token. Such rows are left there, and counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from griffin_core.layouts.states import POSITION
from griffin_core.reference.sampling import sample
from griffin_core.sampling import Sampling, SamplingRows
from griffin_core.shapes import Array
from griffin_core.testing.laws.trial import LawTrial, State
from griffin_core.testing.laws.truth import evaluate
from griffin_core.testing.tolerance import Mismatch, assert_close, check_form

TOKENS = 5
"""Tokens that are decoded."""
NUDGES = 4
"""Scores moved at random within the bound, to see whether a choice was a tie."""

DRAWN = Sampling(temperature=0.8, top_k=9, top_p=0.9, min_p=0.02, repetition_penalty=1.3, repetition_window=4, seed=5)


def greedy(law: LawTrial) -> None:
    """Greedy decoding takes the argmax of one step after another, with the model's own log probabilities."""
    _decodes(law, Sampling(temperature=0.0))


def sampled(law: LawTrial) -> None:
    """Sampled decoding draws what the reference's sampler draws from each step's logits."""
    _decodes(law, DRAWN)


def inactive(law: LawTrial) -> None:
    """Inactive rows keep their state, and get tokens -1 and log probabilities 0."""
    law = law.replace(b=max(2, law.case.b), carry=True)
    params = law.params()
    state = law.start(params)
    active = np.arange(law.case.b) % 2 == law.case.cut % 2
    rows = SamplingRows.start(Sampling(temperature=0.0), [[] for _ in range(law.case.b)])
    tokens, logprobs, after = _decode(law, params, state, law.given.tokens[:, 0], rows, active)
    idle = np.flatnonzero(~active)
    law.same(tokens[idle], np.full((len(idle), TOKENS), -1, np.int32), "tokens of inactive rows")
    law.same(logprobs[idle], np.zeros((len(idle), TOKENS), np.float32), "log probabilities of inactive rows")
    before, now = law.dump(state), law.dump(after)
    law.same_states({n: x[idle] for n, x in now.items()}, {n: x[idle] for n, x in before.items()}, "of inactive rows")
    moved = before[POSITION] + np.where(active, TOKENS, 0).astype(np.int32)
    law.same(now[POSITION], moved, "positions after decode")


def _decodes(law: LawTrial, settings: Sampling) -> None:
    """``decode`` beside the loop that defines it, each feeding on its own tokens until they part."""
    params, given = law.params(), law.given
    state, token = law.start(params), given.tokens[:, 0]
    rows = SamplingRows.start(settings, [[*map(int, given.seen[row]), int(t)] for row, t in enumerate(token)])
    before = law.dump(state)
    tokens, logprobs, after = _decode(law, params, state, token, rows, None)
    law.same_states(law.dump(state), before, "after decode")
    agreed = np.ones(law.case.b, bool)
    bound = _bound(law, tokens)
    for i in range(TOKENS):
        logits, state = law.forward(params, token[:, None], None, state)
        place = before[POSITION] + i + 1
        expected, chances = sample(logits[:, 0], rows, place)
        for row in np.flatnonzero(agreed & (expected != tokens[:, i])):
            _excuse(law, logits[:, 0], rows, place, int(row), int(tokens[row, i]), bound)
            agreed[row] = False
        _logprobs_close(law, logprobs[agreed, i], chances[agreed], bound)
        token = expected
        rows = rows.push(token)
    if agreed.all():
        law.states_agree(after, state, "after decode")


def _decode(
    law: LawTrial, params: Any, state: State, token: Array, rows: SamplingRows, active: Array | None
) -> tuple[Array, Array, State]:
    config = law.given.config
    got = law.ask("decode", config, params, state, law.native(token), TOKENS, rows, active)
    tokens, logprobs = (law.ask("to_numpy", x) for x in got[:2])
    check_form(tokens, (len(token), TOKENS), "int32", "tokens", law.call)
    check_form(logprobs, (len(token), TOKENS), "float32", "log probabilities", law.call)
    return tokens, logprobs, got[2]


def _bound(law: LawTrial, tokens: Array) -> float:
    """Twice the bound of the logits along the decoded text."""
    text = np.concatenate([law.given.tokens[:, :1], tokens[:, :-1]], axis=1)
    return 2.0 * evaluate(law.given, text, None).logits_bound


def _excuse(law: LawTrial, logits: Array, rows: SamplingRows, place: Array, row: int, token: int, bound: float) -> None:
    """Raise unless scores moved within the bound can give this token."""
    rng = np.random.default_rng([law.case.seed, 30])
    scores = logits.astype(np.float64)
    lifted = scores.copy()
    lifted[:, token] += bound
    nudged = [scores + bound * rng.uniform(-1.0, 1.0, scores.shape) for _ in range(NUDGES)]
    if not any(sample(moved, rows, place)[0][row] == token for moved in (lifted, *nudged)):
        expected = int(sample(scores, rows, place)[0][row])
        gap = scores[row, expected] - scores[row, token]
        raise Mismatch(
            f"decode chose token {token} in row {row}, expected {expected} (their scores are {gap:.3g} apart, the "
            f"bound is {bound:.3g}); in decode of {law.case!r}"
        )
    law.ledger.ambiguous += 1


def _logprobs_close(law: LawTrial, got: Array, expected: Array, bound: float) -> None:
    """A log-softmax moves by at most twice what its scores move by."""
    call = f"decode of {law.case!r}"
    limit = 2.0 * bound + 1e-6 * np.abs(expected)
    assert_close(got, expected, limit, dtype="float32", what="log probability", call=call, ledger=law.ledger)
