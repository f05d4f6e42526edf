"""``decode`` on a device beside the eager steps on a processor, on the kit's tiny models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import griffin_core_torch as backend
from griffin_core import registry
from griffin_core.sampling import Sampling, SamplingRows
from griffin_core.shapes import Array
from griffin_core.testing import ModelCase, assert_close
from griffin_core.testing.laws.trial import LawTrial
from griffin_core.testing.laws.truth import Truth, evaluate
from griffin_core_torch.decoding import kept

TOKENS = 5
CASES = tuple(ModelCase(model=name, b=3, t=2, seed=1, carry=True) for name in ("hawk", "griffin", "capped"))
"""Of which ``decided`` holds: no two scores are so close that rounding may choose between them."""


@dataclass(frozen=True)
class Decoded:
    """What a call gave: tokens [b n], log probabilities [b n], the canonical state."""

    tokens: Array
    logprobs: Array
    state: dict[str, Array]


def decode(case: ModelCase, device: str, kernel: str, calls: int = 1) -> list[Decoded]:
    """The same greedy call, several times, with the same weights."""
    law = LawTrial("torch", backend, case)
    with registry.on_device("torch", device):
        params, token = law.params(), law.given.tokens[:, 0]
        state = law.start(params)
        rows = SamplingRows.start(Sampling(temperature=0.0), [[int(t)] for t in token])
        found = []
        for _ in range(calls):
            config = law.given.config
            tokens, logprobs, after = backend.decode(config, params, state, token, TOKENS, rows, kernel=kernel)
            found.append(Decoded(backend.to_numpy(tokens), backend.to_numpy(logprobs), law.dump(after)))
        return found


def truth(case: ModelCase, found: Decoded) -> Truth:
    """Float64 logits and state along the decoded text, and how far each may be off."""
    given = LawTrial("torch", backend, case).given
    text = np.concatenate([given.tokens[:, :1], found.tokens[:, :-1]], axis=1)
    return evaluate(given, text, None)


def decided(known: Truth) -> bool:
    """Whether the best score of every token is ahead by more than both evaluations may be off."""
    scores = np.sort(known.logits, axis=-1)
    return bool((scores[..., -1] - scores[..., -2]).min() > 4.0 * known.logits_bound)


def agree(case: ModelCase, found: Decoded, eager: Decoded) -> None:
    """The same tokens, and states and log probabilities within what two evaluations may differ by.

    Raises:
        AssertionError: they do not agree.
    """
    known = truth(case, eager)
    assert decided(known), f"{case!r} leaves a token to rounding"
    np.testing.assert_array_equal(found.tokens, eager.tokens)
    assert found.state.keys() == eager.state.keys()
    pairs = [("log probabilities", found.logprobs, eager.logprobs, 4.0 * known.logits_bound)]
    pairs += [(name, found.state[name], x, 2.0 * known.state_bounds[name]) for name, x in eager.state.items()]
    for name, got, want, bound in pairs:
        if got.dtype.kind == "i":
            np.testing.assert_array_equal(got, want)
        else:
            assert_close(got, want.astype(np.float64), bound, dtype="float32", what=name, call=repr(case))


def graphs() -> list[object]:
    """The recorded graph (or None) of every step that is kept."""
    return [entry.step.graph for entry in kept._kept.values()]
