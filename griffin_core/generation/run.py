"""One generation: decode in pieces, watch for stops, and leave every row's state where its kept text ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from griffin_core.errors import CheckpointError, InputError
from griffin_core.generation.pace import Pace
from griffin_core.generation.session import Session
from griffin_core.generation.stops import Stops
from griffin_core.generation.transcript import Transcript
from griffin_core.sampling import Sampling, SamplingRows
from griffin_core.shapes import Array
from griffin_core.text.stream import StreamDecoder


@dataclass(frozen=True)
class Generation:
    """What one row has generated.

    Attributes:
        text: the new text, without the stop string.
        tokens: the new tokens that lie wholly in it, without the stop id.
        logprobs: the model's own log-probability of each token, before any filter.
        finish_reason: "length" or "stop".
        stop: the stop string or the stop id that ended it.
        session: the session after the tokens, to be continued; None when states were not kept.
    """

    text: str
    tokens: list[int]
    logprobs: list[float]
    finish_reason: str
    stop: str | int | None = None
    session: Session | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Mark:
    """The state after ``made`` tokens of this run."""

    made: int
    state: Any


class Run:
    """Drives one generation over the rows of a session. Iterate over it once; then read ``results``.

    Each step of the iteration gives the text that has become certain, one string per row.

    Args:
        session: where to start.
        sampling: how tokens are chosen; row r uses the seed ``sampling.seed + r``.
        max_new_tokens: tokens of each row at most; 0 is legal.
        stops: what ends a row early.
        decoders: a text stream for each row, primed with the text before; None for a model without tokenizer.
        lively: keep pieces short enough to be watched.
        keep_state: rewind the state of a row that stops early, so that its session can be continued.

    Raises:
        InputError: ``max_new_tokens`` is not a count, stop strings without a tokenizer, or a penalty over more
            tokens than a restored session remembers.
    """

    def __init__(
        self,
        session: Session,
        sampling: Sampling,
        max_new_tokens: int,
        stops: Stops,
        decoders: Sequence[StreamDecoder] | None = None,
        lively: bool = False,
        keep_state: bool = True,
    ) -> None:
        check_count(max_new_tokens)
        if stops.strings and decoders is None:
            raise InputError("stop strings need a tokenizer, and this model has none; give stop ids")
        _check_remembered(session, sampling)
        rows = len(session.histories)
        self.rows = rows
        self.seconds = 0.0
        self._session = session.reserve(max(session.positions) + max_new_tokens)
        self._sampling = sampling
        self._wanted = max_new_tokens
        self._pace = Pace(lively)
        self._keep_state = keep_state
        self._scripts = [Transcript(stops, decoders[row] if decoders else None) for row in range(rows)]
        self._state = self._session.state
        self._marks = [_Mark(0, self._state)]
        self._made = 0

    def __iter__(self) -> Iterator[list[str]]:
        """Decode to the end, piece by piece."""
        while self._made < self._wanted and self._live():
            self._piece(self._pace.next(self._wanted - self._made))
            if self._made == self._wanted:
                for row in self._live():
                    self._scripts[row].run_out()
            yield [script.release() for script in self._scripts]
        for row in self._live():
            self._scripts[row].run_out()

    def finish(self) -> Run:
        """Decode to the end without looking at the pieces."""
        for _ in self:
            pass
        return self

    @property
    def session(self) -> Session:
        """The session after the kept tokens of every row."""
        if not self._keep_state:
            raise InputError("this run did not keep its states; start it with keep_state=True")
        before = self._session
        return replace(
            before,
            state=self._state,
            histories=tuple((*old, *s.tokens) for old, s in zip(before.histories, self._scripts, strict=True)),
            positions=tuple(at + len(s.tokens) for at, s in zip(before.positions, self._scripts, strict=True)),
        )

    @property
    def results(self) -> list[Generation]:
        """What each row has generated."""
        whole = self.session if self._keep_state else None
        alone = len(self._scripts) == 1
        return [
            Generation(
                script.text,
                list(script.tokens),
                list(script.logprobs),
                script.finish_reason or "length",
                script.stop,
                whole if whole is None or alone else whole.take([row]),
            )
            for row, script in enumerate(self._scripts)
        ]

    def _live(self) -> list[int]:
        return [row for row, script in enumerate(self._scripts) if script.finish_reason is None]

    def _piece(self, n: int) -> None:
        live = self._live()
        active = np.zeros(len(self._scripts), bool)
        active[live] = True
        rows, last = self._rows()
        begun = time.perf_counter()
        tokens, logprobs, self._state = self._session.engine.decode(self._state, last, n, rows, active)
        took = time.perf_counter() - begun
        self._pace.took(n, took)
        self.seconds += took
        self._made += n
        stopped = [row for row in live if self._add(row, tokens[row], logprobs[row])]
        if self._keep_state:
            self._rewind(stopped)
            self._move_marks()

    def _rows(self) -> tuple[SamplingRows, Array]:
        """What the sampler must know of each row, and each row's last token int32 [b]."""
        window = max(self._sampling.repetition_window, 1)
        recent = [
            [*old[-window:], *script.tokens[-window:]]
            for old, script in zip(self._session.histories, self._scripts, strict=True)
        ]
        return SamplingRows.start(self._sampling, recent), np.array([row[-1] for row in recent], np.int32)

    def _add(self, row: int, tokens: Array, logprobs: Array) -> bool:
        for token, logprob in zip(tokens.tolist(), logprobs.tolist(), strict=True):
            if logprob != logprob:
                raise CheckpointError(
                    f"the model's scores are NaN at token {self._session.positions[row] + self._made} of row {row}; "
                    "check the weights (griffin verify), or choose another kernel or dtype"
                )
            if self._scripts[row].add(token, logprob):
                return True
        return False

    def _rewind(self, stopped: list[int]) -> None:
        """Put the rows that have just stopped into the state that has consumed all but their last kept token."""
        if not stopped:
            return
        mark = self._marks[0]
        redo = {}
        for row in stopped:
            consumed = [self._session.histories[row][-1], *self._scripts[row].tokens][:-1]
            redo[row] = consumed[mark.made :]
        engine = self._session.engine
        state = mark.state
        if any(redo.values()):
            state = engine.replay(state, redo, len(self._scripts))
        self._state = engine.module.put(self._state, stopped, engine.module.take(state, stopped))

    def _move_marks(self) -> None:
        """Keep the newest state from which every live row can still be rewound, and one newer candidate."""
        settled = min((self._scripts[row].settled for row in self._live()), default=self._made)
        if len(self._marks) > 1 and self._marks[1].made <= settled:
            del self._marks[0]
        if self._made <= settled:
            self._marks = [_Mark(self._made, self._state)]
        elif len(self._marks) == 1:
            self._marks.append(_Mark(self._made, self._state))


def check_count(max_new_tokens: int) -> None:
    """Refuse what is not a number of tokens.

    Raises:
        InputError: it is negative or not an integer.
    """
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 0:
        raise InputError(f"max_new_tokens={max_new_tokens!r}; expected an integer of at least 0")


def _check_remembered(session: Session, sampling: Sampling) -> None:
    if sampling.repetition_penalty == 1.0:
        return
    for history, position in zip(session.histories, session.positions, strict=True):
        if len(history) < min(sampling.repetition_window, position + 1):
            raise InputError(
                f"repetition_window={sampling.repetition_window}, but the restored state remembers the last "
                f"{len(history)} tokens only; choose a window of at most {len(history)}"
            )
