"""Laws of text: right, causal, cut anywhere, packed or padded in any way, row by row."""

from __future__ import annotations

import itertools

import numpy as np

from griffin_core.checks import PAD
from griffin_core.shapes import Array
from griffin_core.testing.laws.trial import LawTrial
from griffin_core.testing.laws.truth import explicit
from griffin_core.testing.tolerance import Mismatch, check_finite, check_form


def reference(law: LawTrial) -> None:
    """Logits and states are within the bound of the float64 reference."""
    params = law.params()
    got, state = law.own(params, law.start(params))
    law.close(got, law.truth.logits, law.truth.logits_bound, "")
    law.states_close(law.dump(state), law.truth.state, 1.0, "")


def form(law: LawTrial) -> None:
    """Logits are finite float32; without a state none is returned, and the logits are the same."""
    law = law.replace(carry=False)
    params, given = law.params(), law.given
    got, state = law.own(params, None)
    check_form(got, (*given.tokens.shape, given.config.vocab_size), "float32", "logits", law.call)
    check_finite(got, "logits", law.call)
    if state is not None:
        raise Mismatch(f"forward without a state returned one ({type(state).__name__}); in {law.call}")
    law.agree(got, law.own(params, law.empty())[0], "without a state")


def packed(law: LawTrial) -> None:
    """Documents packed in one row give what each gives alone."""
    law = law.replace(b=1, carry=False, documents="random" if law.case.documents == "none" else law.case.documents)
    params, positions = law.params(), explicit(law.given)
    row, _ = law.own(params, None)
    starts = [*np.flatnonzero(positions[0] == 0), law.case.t]
    for start, stop in itertools.pairwise(starts):
        alone, _ = law.forward(params, law.given.tokens[:, start:stop])
        law.agree(row[:, start:stop], alone, f"of the packed document {start}..{stop}")


def padded(law: LawTrial) -> None:
    """Padding anywhere in a row, whatever tokens it holds, changes nothing but its own logits, which are 0."""
    params, given = law.params(), law.given
    alone, after = law.own(params, law.start(params))
    rng = np.random.default_rng([law.case.seed, 20])
    length = law.case.t + 1 + law.case.cut % 5
    places = np.stack([np.sort(rng.permutation(length)[: law.case.t]) for _ in range(law.case.b)])
    tokens = rng.choice(np.array([-7, 10**6, 0], np.int32), (law.case.b, length))
    positions = np.full((law.case.b, length), PAD, np.int32)
    np.put_along_axis(tokens, places, given.tokens, axis=1)
    np.put_along_axis(positions, places, explicit(given), axis=1)
    got, state = law.forward(params, tokens, positions, law.start(params))
    law.agree(np.take_along_axis(got, places[..., None], axis=1), alone, "between padding")
    law.states_agree(state, after, "after padding")
    law.same(got[positions == PAD], np.zeros_like(got[positions == PAD]), "logits at padding")


def promised(law: LawTrial) -> None:
    """With padding promised to stand at the end (``padding="right"``), the answer is the same."""
    params, given = law.params(), law.given
    extra = np.zeros((law.case.b, 2), np.int32)
    tokens = np.concatenate([given.tokens, extra], axis=1)
    positions = np.concatenate([explicit(given), extra + PAD], axis=1)
    got, state = law.forward(params, tokens, positions, law.start(params), padding="right")
    other, after = law.forward(params, tokens, positions, law.start(params))
    law.agree(got, other, "with the padding promised at the end")
    law.states_agree(state, after, "with the padding promised at the end")


def cut(law: LawTrial) -> None:
    """A prefix and then the rest, from the state that the prefix gave, is the whole, for any cut."""
    law = law.replace(t=max(2, law.case.t))
    k = 1 + law.case.cut % (law.case.t - 1)
    _pieces(law, (0, k, law.case.t), f"cut at {k}")


def steps(law: LawTrial) -> None:
    """One token at a time is all at once."""
    _pieces(law, tuple(range(law.case.t + 1)), "one token at a time")


def _pieces(law: LawTrial, cuts: tuple[int, ...], about: str) -> None:
    params, given = law.params(), law.given
    whole, after = law.own(params, law.start(params))
    state, parts = law.start(params), []
    for start, stop in itertools.pairwise(cuts):
        positions = None if given.positions is None else given.positions[:, start:stop]
        part, state = law.forward(params, given.tokens[:, start:stop], positions, state)
        parts.append(part)
    law.agree(np.concatenate(parts, axis=1), whole, about)
    law.states_agree(state, after, about)


def causal(law: LawTrial) -> None:
    """Other tokens later leave the earlier logits as they were, bit for bit."""
    params, given = law.params(), law.given
    k = law.case.cut % law.case.t
    before, _ = law.own(params, law.start(params))
    tokens = given.tokens.copy()
    tokens[:, k:] = (tokens[:, k:] + 1) % given.config.vocab_size
    after, _ = law.forward(params, tokens, given.positions, law.start(params))
    law.same(after[:, :k], before[:, :k], f"logits before token {k}, when later tokens change")


def rows(law: LawTrial) -> None:
    """A row's logits do not depend on the other rows, and equal those of the row alone."""
    law = law.replace(b=max(2, law.case.b))
    params, given = law.params(), law.given
    whole, _ = law.own(params, law.start(params))
    tokens = given.tokens.copy()
    tokens[:-1] = (tokens[:-1] + 1) % given.config.vocab_size
    changed, _ = law.forward(params, tokens, given.positions, law.start(params))
    law.same(changed[-1:], whole[-1:], "logits of the last row, when other rows change")
    positions = None if given.positions is None else given.positions[-1:]
    state = law.ask("take", law.start(params), [law.case.b - 1])
    alone, _ = law.forward(params, given.tokens[-1:], positions, state)
    law.agree(whole[-1:], alone, "of the row alone")


def inputs(law: LawTrial) -> None:
    """No argument is written: tokens, positions, weights and state are as they were."""
    params, given = law.params(), law.given
    state = law.start(params)
    tokens, positions = law.native(given.tokens), law.native(explicit(given))
    before = law.dump(state)
    law.ask("forward", given.config, params, tokens, positions, state)
    law.same_states(law.dump(state), before, "after the call")
    law.same(law.ask("to_numpy", tokens), given.tokens, "tokens after the call")
    law.same(law.ask("to_numpy", positions), explicit(given), "positions after the call")
    for name, value in law.ask("dump_params", given.config, params).items():
        law.same(value, _as(given.params[name], value), f"weight {name} after the call")


def repeat(law: LawTrial) -> None:
    """Two runs give the same bits."""
    params = law.params()
    first, second = (law.own(params, law.start(params)) for _ in range(2))
    law.same(second[0], first[0], "logits of a second run")
    law.same_states(law.dump(second[1]), law.dump(first[1]), "of a second run")


def _as(value: Array, like: Array) -> Array:
    return value.astype(like.dtype)
