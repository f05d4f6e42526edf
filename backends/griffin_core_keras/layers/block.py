"""What the blocks share: dense layers inside, and what the functions in ``blocks`` are told."""

from __future__ import annotations

from typing import Any

from griffin_core_keras.blocks import Call
from griffin_core_keras.layers.base import draws
from griffin_core_keras.layers.dense import Dense
from griffin_core_keras.layers.temporal import Temporal


class Block(Temporal):
    """A layer made of layers; those who inherit build them in ``build`` and compute in ``run``."""

    kernel: str | None = None

    def dense(self, name: str, units: int, std: float, bias: bool = True) -> Dense:
        """A dense layer of this block, in its policy."""
        initial = draws(f"{name}.weight", self.seed, std=std, transposed=True)
        return Dense(units, use_bias=bias, kernel_initializer=initial, name=name, dtype=self.dtype_policy)

    def call_of(self, positions: Any | None) -> Call:
        """What the functions in ``blocks`` need to know."""
        return Call(positions=positions, kernel=self.kernel)
