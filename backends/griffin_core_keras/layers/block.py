"""What the blocks share: dense layers inside, positions and padding of a call, the states that they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from griffin_core.layouts.states import POSITION
from griffin_core_keras.blocks import Call
from griffin_core_keras.layers.base import Layer, draws, right_padded, spec_like, time_positions
from griffin_core_keras.layers.dense import Dense
from griffin_core_keras.padding import following


class Block(Layer):
    """A layer made of layers; those who inherit build them in ``build`` and compute in ``run``."""

    kernel: str | None = None

    def dense(self, name: str, units: int, std: float, bias: bool = True) -> Dense:
        """A dense layer of this block, in its policy."""
        initial = draws(f"{name}.weight", self.seed, std=std, transposed=True)
        return Dense(units, use_bias=bias, kernel_initializer=initial, name=name, dtype=self.dtype_policy)

    def call_of(self, positions: Any | None) -> Call:
        """What the functions in ``blocks`` need to know."""
        return Call(positions=positions, kernel=self.kernel)

    def around(
        self,
        run: Callable[[Any, Any], tuple[Any, Mapping[str, Any]]],
        x: Any,
        positions: Any | None,
        state: Mapping[str, Any] | None,
        mask: Any | None,
        padding: str,
    ) -> Any:
        """``run(x, positions)`` on right-padded rows: y, or (y, state) where a state is given."""
        begin = None if state is None else state[POSITION]
        at = time_positions(positions, mask, begin)
        at = following(begin, x) if at is None and state is not None else at
        y, new = right_padded(run, x, at, padding)
        return y if state is None else (y, dict(new))

    def compute_output_spec(
        self, x: Any, positions: Any = None, state: Any = None, mask: Any = None, padding: str = "any", **_: Any
    ) -> Any:
        """The shape of x, and the state's."""
        y = keras.KerasTensor(x.shape, dtype=self.compute_dtype)
        return y if state is None else (y, spec_like(state))
