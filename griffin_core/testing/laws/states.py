"""Laws of states and weights as values: exchanged, gathered, replaced by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from griffin_core.shapes import Array
from griffin_core.testing.laws.trial import LawTrial, State
from griffin_core.testing.laws.truth import evaluate
from griffin_core.testing.tolerance import Mismatch, dtype_name


def exchange(law: LawTrial) -> None:
    """``load_state(dump_state(s))`` is s: the same bits, and the same continuation."""
    law = law.replace(carry=True)
    params = law.params()
    state = law.start(params)
    canonical = law.dump(state)
    loaded = law.ask("load_state", law.given.config, canonical, dtype=law.case.dtype)
    law.same_states(law.dump(loaded), canonical, "after load_state(dump_state)")
    _continues(law, params, loaded, state, "from a state dumped and loaded")


def weights(law: LawTrial) -> None:
    """``dump_params(load_params(p))`` is p, with its names, dtypes and bits."""
    given = law.given
    dumped = law.ask("dump_params", given.config, law.params())
    if set(dumped) != set(given.params):
        difference = sorted(set(dumped) ^ set(given.params))
        raise Mismatch(f"dump_params and the canonical names differ in {difference}; in {law.call}")
    for name, value in given.params.items():
        if dtype_name(dumped[name].dtype) != dtype_name(value.dtype):
            raise Mismatch(f"weight {name} came back as {dumped[name].dtype}, expected {value.dtype}; in {law.call}")
        law.same(dumped[name], value, f"weight {name} after load_params and dump_params")


def take(law: LawTrial) -> None:
    """``take`` gathers rows, repeats included, and leaves the state as it was."""
    law = law.replace(carry=True)
    params = law.params()
    state = law.start(params)
    before = law.dump(state)
    order = [*range(law.case.b - 1, -1, -1), 0]
    taken = law.ask("take", state, order)
    law.same_states(law.dump(state), before, "after take")
    law.same_states(law.dump(taken), _rows(before, order), f"of take({order})")
    tokens = law.given.tokens[order]
    got, _ = law.forward(params, tokens, None, taken)
    whole, _ = law.forward(params, law.given.tokens, None, state)
    law.close(got, whole[order].astype(np.float64), 2.0 * _continuation(law), "from taken rows")


def put(law: LawTrial) -> None:
    """``put`` replaces rows of a new state; the state and the rows that it got stay as they were."""
    law = law.replace(b=max(2, law.case.b), carry=True)
    params = law.params()
    state, fresh = law.start(params), law.empty(1)
    before, row = law.dump(state), law.case.cut % law.case.b
    mixed = law.ask("put", state, [row], fresh)
    expected = {name: value.copy() for name, value in before.items()}
    for name, value in law.dump(fresh).items():
        expected[name][row] = value[0]
    law.same_states(law.dump(mixed), expected, f"of put([{row}])")
    law.same_states(law.dump(state), before, "after put")
    got, _ = law.forward(params, law.given.tokens, None, mixed)
    alone, _ = law.forward(params, law.given.tokens[row : row + 1], None, law.empty(1))
    anew = evaluate(replace(law.given, seen=law.given.seen[:, :0]), law.given.tokens, None)
    law.close(got[row : row + 1], alone.astype(np.float64), 2.0 * anew.logits_bound, "of a row that starts anew")


def _continues(law: LawTrial, params: object, got: State, expected: State, about: str) -> None:
    first, _ = law.forward(params, law.given.tokens, None, got)
    second, _ = law.forward(params, law.given.tokens, None, expected)
    law.close(first, second.astype(np.float64), 2.0 * _continuation(law), about)


def _continuation(law: LawTrial) -> float:
    """The bound of one document that goes on (the case's own may start others)."""
    return law.replace(documents="none").truth.logits_bound


def _rows(state: dict[str, Array], rows: list[int]) -> dict[str, Array]:
    return {name: value[rows] for name, value in state.items()}
