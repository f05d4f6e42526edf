"""A decode session: a batch of token histories and the state that has consumed them, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.generation.engine import Engine
from griffin_core.rotary import MAX_POSITION
from griffin_core.shapes import Array


@dataclass(frozen=True)
class Session:
    """Rows of text in progress. Nothing here is ever written: every method gives a new session.

    Attributes:
        engine: the model.
        state: native state of b rows; it has consumed all but the last token of each row.
        histories: the tokens of each row, the last one included; a restored session holds only the last few.
        positions: tokens of each row that the state has consumed.
        capacity: tokens the state can hold when a layer attends globally, else None.
    """

    engine: Engine
    state: Any
    histories: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...]
    capacity: int | None = None

    @classmethod
    def start(cls, engine: Engine, prompts: Sequence[Sequence[int]], more: int = 0) -> Session:
        """A session that has read these prompts.

        Args:
            prompts: token ids of each row, of any lengths but zero.
            more: tokens that are going to be generated; a globally attending model makes room for them.

        Raises:
            InputError: no prompt, an empty one, or an id outside the vocabulary.
            NotEnoughMemory: the state does not fit.
        """
        rows = [check_ids(engine.config, prompt, f"prompt {row}") for row, prompt in enumerate(prompts)]
        if not rows:
            raise InputError("there is no prompt; give at least one")
        _check_length(max(map(len, rows)) + more)
        capacity = max(map(len, rows)) - 1 + more if engine.config.has_global_attention else None
        state = engine.init_state(len(rows), None if capacity is None else max(capacity, 1))
        start = [0] * len(rows)
        state = engine.consume(state, [row[:-1] for row in rows], start)
        positions = tuple(len(row) - 1 for row in rows)
        return cls(engine, state, tuple(map(tuple, rows)), positions, capacity)

    def feed(self, rows: Sequence[Sequence[int]], more: int = 0) -> Session:
        """The session after further tokens for each row (none for some rows is fine).

        Raises:
            InputError: the number of rows differs, or an id is outside the vocabulary.
        """
        if len(rows) != len(self.histories):
            raise InputError(f"{len(rows)} prompts for a session of {len(self.histories)} rows; give one for each")
        new = [check_ids(self.engine.config, row, f"prompt {i}", least=0) for i, row in enumerate(rows)]
        positions = tuple(at + len(row) for at, row in zip(self.positions, new, strict=True))
        roomy = self.reserve(max(positions) + more)
        # The last token of each history is still to be consumed; the last new one is not.
        consumed = [[old[-1], *row][:-1] for old, row in zip(self.histories, new, strict=True)]
        state = self.engine.consume(roomy.state, consumed, self.positions)
        histories = tuple((*old, *row) for old, row in zip(self.histories, new, strict=True))
        return replace(roomy, state=state, histories=histories, positions=positions)

    def reserve(self, tokens: int) -> Session:
        """The session with room for ``tokens`` consumed tokens in each row.

        Raises:
            InputError: the position would pass the largest there is.
            NotEnoughMemory: the larger state does not fit.
        """
        _check_length(tokens + 1)
        if self.capacity is None or tokens <= self.capacity:
            return self
        self.engine.check_memory(len(self.histories), tokens)
        module = self.engine.module
        canonical = _with_capacity(self.engine.config, module.dump_state(self.engine.config, self.state), tokens)
        return replace(self, state=self.engine.load_state(canonical), capacity=tokens)

    def take(self, rows: Sequence[int]) -> Session:
        """The session of some of the rows; one row may be taken more than once."""
        return replace(
            self,
            state=self.engine.module.take(self.state, list(rows)),
            histories=tuple(self.histories[row] for row in rows),
            positions=tuple(self.positions[row] for row in rows),
        )


def check_ids(config: GriffinConfig, ids: Sequence[int], name: str, least: int = 1) -> list[int]:
    """Token ids as a list of ints.

    Raises:
        InputError: too few, not integers, or outside the vocabulary.
    """
    tokens = list(ids)
    if len(tokens) < least:
        raise InputError(f"{name} has zero tokens; give at least one, such as the tokenizer's bos id")
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int | np.integer):
            raise InputError(f"{name} holds {token!r}; expected token ids, which are integers")
        if not 0 <= token < config.vocab_size:
            raise InputError(
                f"{name} holds the token id {token}, outside the vocabulary 0..{config.vocab_size - 1}; "
                "use the checkpoint's own tokenizer"
            )
    return [int(token) for token in tokens]


def _check_length(tokens: int) -> None:
    if tokens >= MAX_POSITION:
        raise InputError(f"prompt and new tokens are {tokens} together; they must stay below {MAX_POSITION}")


def _with_capacity(config: GriffinConfig, canonical: dict[str, Array], capacity: int) -> dict[str, Array]:
    """The canonical state with longer caches. Position p stands in slot p while it fits, so zeros are appended."""
    grown = dict(canonical)
    for name, value in canonical.items():
        if name.endswith((".k", ".v")):
            grown[name] = np.pad(value, ((0, 0), (0, capacity - value.shape[1]), (0, 0)))
    return grown
