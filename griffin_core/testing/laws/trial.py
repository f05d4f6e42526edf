"""One law on one case of a whole model: calls to the backend, and comparisons that keep score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from griffin_core.errors import KernelNotSupported
from griffin_core.layouts.states import POSITION
from griffin_core.shapes import Array
from griffin_core.testing.cases import ModelCase
from griffin_core.testing.laws.truth import Setting, Truth, setting, state_dtypes, truth
from griffin_core.testing.search import JudgedError, RefusedCase
from griffin_core.testing.subjects import say
from griffin_core.testing.tolerance import Ledger, assert_close, assert_same, rounding

State = Any
"""A backend's native decode state."""


@dataclass(frozen=True)
class LawTrial:
    """What a law gets."""

    backend: str
    module: ModuleType
    case: ModelCase
    ledger: Ledger = field(default_factory=Ledger)

    def replace(self, **changes: object) -> LawTrial:
        """The same trial on a changed case."""
        return LawTrial(self.backend, self.module, self.case.replace(**changes), self.ledger)

    @property
    def given(self) -> Setting:
        """The model and the inputs."""
        return setting(self.case)

    @property
    def truth(self) -> Truth:
        """Logits, state and bounds of the case's own tokens."""
        return truth(self.case)

    @property
    def call(self) -> str:
        """How messages name this call."""
        return f"forward of {self.case!r}"

    # ---- the backend ---------------------------------------------------------------------------------

    def ask(self, name: str, *arguments: Any, **options: Any) -> Any:
        """One call of a backend function; what it raises is its own failure."""
        try:
            with np.errstate(all="ignore"):
                return getattr(self.module, name)(*arguments, **options)
        except KernelNotSupported as refusal:
            raise RefusedCase(str(refusal)) from refusal
        except (JudgedError, RefusedCase):
            raise
        except Exception as error:
            raise JudgedError(f"{name} raised {say(error)}") from error

    def native(self, x: Array | None) -> Any:
        """A backend array, or None."""
        return None if x is None else self.ask("from_numpy", x)

    def params(self) -> Any:
        """The weights in the backend's form."""
        return self.ask("load_params", self.given.config, self.given.params, dtype=self.case.dtype)

    def empty(self, batch: int | None = None) -> State:
        """A state that has seen nothing."""
        given = self.given
        rows = self.case.b if batch is None else batch
        return self.ask("init_state", given.config, rows, capacity=given.capacity, dtype=self.case.dtype)

    def start(self, params: Any) -> State:
        """The state that comes in: empty, or after ``given.seen``."""
        state = self.empty()
        if self.given.seen.shape[1]:
            _, state = self.forward(params, self.given.seen, None, state)
        return state

    def forward(
        self, params: Any, tokens: Array, positions: Array | None = None, state: State = None, padding: str = "any"
    ) -> tuple[Array, State]:
        """(logits as NumPy, native state or None)."""
        arrays = (self.native(tokens), self.native(positions))
        got = self.ask("forward", self.given.config, params, *arrays, state, padding=padding)
        if not isinstance(got, Sequence) or len(got) != 2:
            raise JudgedError(f"forward returned {type(got).__name__}; expected (logits, state)")
        return self.ask("to_numpy", got[0]), got[1]

    def own(self, params: Any, state: State) -> tuple[Array, State]:
        """``forward`` on the case's own tokens and positions."""
        return self.forward(params, self.given.tokens, self.given.positions, state)

    def dump(self, state: State) -> dict[str, Array]:
        """The canonical form of a state."""
        found: dict[str, Array] = self.ask("dump_state", self.given.config, state)
        return found

    # ---- comparisons ---------------------------------------------------------------------------------

    def close(self, got: Array, expected: Array, bound: float, about: str) -> None:
        """Logits within a bound."""
        what = f"logits {about}".strip()
        assert_close(got, expected, bound, dtype="float32", what=what, call=self.call, ledger=self.ledger)

    def agree(self, got: Array, other: Array, about: str) -> None:
        """Two evaluations of the same logits: within twice the bound of each other."""
        self.close(got, other.astype(np.float64), 2.0 * self.truth.logits_bound, about)

    def states_close(self, got: Mapping[str, Array], expected: Mapping[str, Array], factor: float, about: str) -> None:
        """Canonical states within ``factor`` times the bound, in the right dtypes."""
        if set(got) != set(expected):
            raise AssertionError(f"state {about} has {sorted(got)}, expected {sorted(expected)}; in {self.call}")
        bounds = self.truth.state_bounds
        for name, dtype in state_dtypes(self.given, expected).items():
            what = f"state {name} {about}".strip()
            if name == POSITION:
                assert_same(got[name], np.asarray(expected[name], np.int32), what=what, call=self.call)
                continue
            value = np.asarray(expected[name], np.float64)
            limit = factor * bounds[name] + (factor - 1.0) * rounding(value, np.asarray(bounds[name]), dtype)
            assert_close(got[name], value, limit, dtype=dtype, what=what, call=self.call, ledger=self.ledger)

    def states_agree(self, got: State, other: State, about: str) -> None:
        """Two native states of the same text: within twice the bound of each other."""
        self.states_close(self.dump(got), self.dump(other), 2.0, about)

    def same(self, got: Array, expected: Array, what: str) -> None:
        """Exactly equal values."""
        assert_same(got, expected, what=what, call=self.call)

    def same_states(self, got: Mapping[str, Array], expected: Mapping[str, Array], about: str) -> None:
        """Canonical states with equal names and values."""
        if set(got) != set(expected):
            raise AssertionError(f"state {about} has {sorted(got)}, expected {sorted(expected)}; in {self.call}")
        for name, value in expected.items():
            self.same(got[name], value, f"state {name} {about}")
