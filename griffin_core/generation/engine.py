"""The few calls of a backend that generation needs, with the model they run on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from griffin_core import memory, registry
from griffin_core.checks import PAD
from griffin_core.config import GriffinConfig
from griffin_core.protocol import capability
from griffin_core.sampling import Sampling, SamplingRows
from griffin_core.shapes import Array

PREFILL_ROW = 32
"""Tokens of one row in a prefill call at least, however many rows share the ``memory.PREFILL_TOKENS``."""
STATES_AT_ONCE = 3
"""States a run holds: the current one, the one it can rewind to, and one in between."""

_REPLAY = Sampling(temperature=0.0, repetition_window=0)


@dataclass(frozen=True)
class Engine:
    """A model on a backend, ready to be fed and to decode.

    Attributes:
        config: the architecture.
        params: the backend's native parameters.
        backend: the backend's name.
        dtype: compute dtype of the state by name; None is the backend's own default.
        device: where the state lives; None is the backend's own default.
        kernel: the kernel asked for; None follows GRIFFIN_KERNEL.
        compute_dtype: passed to the backend; None computes in the dtype of the parameters.
    """

    config: GriffinConfig
    params: Any
    backend: str
    dtype: str | None = None
    device: str | None = None
    kernel: str | None = None
    compute_dtype: str | None = None

    @property
    def module(self) -> ModuleType:
        """The backend's module."""
        return registry.load_backend(self.backend)

    def init_state(self, batch: int, capacity: int | None) -> Any:
        """A fresh native state of ``batch`` rows.

        Raises:
            NotEnoughMemory: its room in main memory is missing.
        """
        self.check_memory(batch, capacity)
        return self.module.init_state(self.config, batch, capacity=capacity, dtype=self.dtype, device=self.device)

    def check_memory(self, batch: int, capacity: int | None) -> None:
        """Refuse a batch whose states and activations do not fit into main memory; other devices refuse by themselves.

        Raises:
            NotEnoughMemory: giving the figures.
        """
        if self.device not in (None, "cpu"):
            return
        needed = memory.inference(self.config, self.dtype or "float32", batch, capacity)
        room = f" and room for {capacity} tokens each" if capacity is not None else ""
        rows = f"{batch} row{'s' if batch > 1 else ''}"
        memory.require(STATES_AT_ONCE * needed.state + needed.activations, f"generating {rows}{room}")

    def load_state(self, canonical: dict[str, Array]) -> Any:
        """The native state of a canonical one."""
        return self.module.load_state(self.config, canonical, dtype=self.dtype, device=self.device)

    def consume(self, state: Any, rows: Sequence[Sequence[int]], positions: Sequence[int]) -> Any:
        """Feed each row its tokens, in pieces whose memory does not depend on their number.

        Args:
            state: native state of b rows.
            rows: b lists of token ids, of any lengths, zero included.
            positions: tokens that each row's state has consumed already.

        Returns:
            The native state after the tokens. A row that has run out of tokens takes no further part.
        """
        piece = max(PREFILL_ROW, memory.PREFILL_TOKENS // len(rows))
        for begin in range(0, max(map(len, rows)), piece):
            live = [row for row, tokens in enumerate(rows) if len(tokens) > begin]
            part = state if len(live) == len(rows) else self.module.take(state, live)
            tokens, where = _right_padded(
                [rows[row][begin : begin + piece] for row in live], [positions[row] + begin for row in live]
            )
            part = self._hidden(part, tokens, where)
            state = part if len(live) == len(rows) else self.module.put(state, live, part)
        return state

    def decode(
        self, state: Any, tokens: Array, n: int, sampling: SamplingRows, active: Array
    ) -> tuple[Array, Array, Any]:
        """``n`` tokens for each active row.

        Args:
            state: native state that has consumed all but the last token of each row.
            tokens: int32 [b], that last token.
            active: bool [b]; the other rows keep their state.

        Returns:
            tokens int32 [b n], log-probabilities float32 [b n], the state (the last token not consumed).
        """
        step = capability(self.backend, self.module, "decode")
        made, logprobs, state = step(
            self.config,
            self.params,
            state,
            tokens,
            n,
            sampling,
            active=active,
            kernel=self.kernel,
            compute_dtype=self.compute_dtype,
        )
        to_numpy = self.module.to_numpy
        return to_numpy(made), to_numpy(logprobs), state

    def replay(self, state: Any, rows: dict[int, list[int]], batch: int) -> Any:
        """Consume given tokens one at a time through ``decode``.

        The batch shape and every product are those of the decoding that first made the tokens, so the state is
        equal to the bit wherever the backend's step does not depend on how many steps one call makes.

        Args:
            state: native state of ``batch`` rows.
            rows: tokens to consume by row; the other rows keep their state.
        """
        idle = SamplingRows.start(_REPLAY, [[] for _ in range(batch)])
        for index in range(max(map(len, rows.values()))):
            active = np.array([index < len(rows.get(row, ())) for row in range(batch)])
            tokens = [rows[row][index] if active[row] else 0 for row in range(batch)]
            _, _, state = self.decode(state, np.array(tokens, np.int32), 1, idle, active)
        return state

    def _hidden(self, state: Any, tokens: Array, positions: Array | None) -> Any:
        from_numpy = self.module.from_numpy
        _, state = self.module.hidden(
            self.config,
            self.params,
            from_numpy(tokens, device=self.device),
            positions=None if positions is None else from_numpy(positions, device=self.device),
            state=state,
            padding="right",
            kernel=self.kernel,
            compute_dtype=self.compute_dtype,
        )
        return state


def _right_padded(rows: list[Sequence[int]], starts: list[int]) -> tuple[Array, Array | None]:
    """int32 tokens [b t] and positions [b t], or None for positions when no row needs padding."""
    longest = max(map(len, rows))
    tokens = np.zeros((len(rows), longest), np.int32)
    positions = np.full((len(rows), longest), PAD, np.int32)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = ids
        positions[row, : len(ids)] = starts[row] + np.arange(len(ids))
    return tokens, positions if (positions == PAD).any() else None
