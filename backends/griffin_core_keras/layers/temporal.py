"""What layers along time share: positions from masks, padding anywhere, states with a position, symbolic calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from griffin_core.checks import PAD
from griffin_core.layouts.states import POSITION
from griffin_core_keras.layers.base import Layer
from griffin_core_keras.padding import compaction, ends, following, gather_time, positions_of, scatter_time


class Temporal(Layer):
    """A layer whose tokens see those before them; its state holds what later tokens need, and their position."""

    def along_time(
        self,
        run: Callable[[Any, Any], tuple[Any, Mapping[str, Any]]],
        x: Any,
        positions: Any | None,
        state: Mapping[str, Any] | None,
        mask: Any | None,
        padding: str,
    ) -> Any:
        """``run(x, positions)`` on right-padded rows: y, or (y, state) where a state is given.

        Args:
            run: returns y and, where there is a state, the new one; its position is added here.
            x: [b t ...].
            positions, state, mask, padding: the arguments of the layer's call.
        """
        if state is None:
            y, _ = _right_padded(run, x, time_positions(positions, mask), padding)
            return y
        begin = state[POSITION]

        def advance(x: Any, at: Any) -> tuple[Any, dict[str, Any]]:
            y, new = run(x, at)
            return y, {**new, POSITION: ends(at, begin)}

        at = time_positions(positions, mask, begin)
        if at is None:  # nobody spoke of padding, so none has to be moved
            at, padding = following(begin, x), "right"
        return _right_padded(advance, x, at, padding)

    def compute_output_spec(
        self, x: Any, positions: Any = None, state: Any = None, mask: Any = None, padding: str = "any", **_: Any
    ) -> Any:
        """The shape of x, and the state's."""
        y = keras.KerasTensor(x.shape, dtype=self.compute_dtype)
        if state is None:
            return y
        return y, {
            name: keras.KerasTensor(value.shape, dtype=keras.backend.standardize_dtype(value.dtype))
            for name, value in state.items()
        }


def time_positions(positions: Any | None, mask: Any | None, begin: Any | None = None) -> Any | None:
    """int32 [b t], or None: what a call says about its tokens.

    Args:
        positions: given by the caller.
        mask: bool [b t], False at padding; with positions it adds padding to them.
        begin: int32 [b], position of the state's next token.
    """
    if mask is None:
        return positions
    if positions is not None:
        return ops.where(ops.cast(mask, "bool"), ops.cast(positions, "int32"), PAD)
    return positions_of(mask, begin)


def _right_padded(
    run: Callable[[Any, Any], tuple[Any, Mapping[str, Any]]], x: Any, positions: Any | None, padding: str
) -> tuple[Any, Mapping[str, Any]]:
    """``run(x, positions)`` on rows whose padding stands at their ends; the outputs go back to their places."""
    if positions is None or padding == "right":
        return run(x, positions)
    order = compaction(positions)
    y, state = run(gather_time(x, order), gather_time(ops.cast(positions, "int32"), order))
    y = scatter_time(y, order)
    return ops.where((positions == PAD)[..., None], ops.zeros_like(y), y), state
