"""The Real-Gated Linear Recurrent Unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from griffin_core.errors import ConfigError
from griffin_core.layouts.states import POSITION
from griffin_core_keras.engine import engine
from griffin_core_keras.layers.base import draws, register
from griffin_core_keras.layers.temporal import Temporal

GATES = ("input_gate", "recurrent_gate")


@register
class RGLRU(Temporal):
    """h_t = a h_{t-1} + sqrt(1 - a^2) i x_t with gates from block-diagonal products of x (Griffin, section 2.4).

    The decay parameter and the state are float32 whatever the policy.

    Args:
        gate_blocks: blocks h of the gates; divides the width.
        seed, init: of the initial weights: "paper" or "released"; without a seed they are zeros.
        kernel: name of a kernel, or None for GRIFFIN_KERNEL or the first that can run the call.

    Call arguments:
        x: [b t d].
        positions: int32 [b t], 0 starts a document, -1 is padding. None: tokens continue the state, or start one.
        state: {"h": float32 [b d], "position": int32 [b]}. With it the call returns (y, state).
        mask: bool [b t], False at padding, which may stand anywhere.
        padding: "right" promises that padding stands at the ends of rows.

    Raises:
        ConfigError: the blocks do not divide the width.
    """

    def __init__(
        self, gate_blocks: int = 16, seed: int | None = 0, init: str = "paper", kernel: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.gate_blocks, self.seed, self.init, self.kernel = gate_blocks, seed, init, kernel

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """recurrent_param [d]; weights [h k k] and biases [h k] of both gates."""
        width, blocks = input_shape[-1], self.gate_blocks
        if width % blocks:
            raise ConfigError(f"gate_blocks={blocks} does not divide the width {width}; choose a divisor")
        size = width // blocks
        decay = draws("recurrent_param", self.seed, rule="recurrence", init=self.init)
        self.recurrent_param = self.add_weight(
            name="recurrent_param", shape=(width,), initializer=decay, dtype="float32", autocast=False
        )
        std = (size if self.init == "paper" else width) ** -0.5
        for gate in GATES:
            initial = draws(f"{gate}_weight", self.seed, std=std)
            weight = self.add_weight(name=f"{gate}_weight", shape=(blocks, size, size), initializer=initial)
            setattr(self, f"{gate}_weight", weight)
            bias = self.add_weight(name=f"{gate}_bias", shape=(blocks, size), initializer="zeros")
            setattr(self, f"{gate}_bias", bias)

    def params(self) -> dict[str, Any]:
        """The parameters of the operation ``rg_lru``, as Keras gives them inside a call."""
        names = ("recurrent_param", *(f"{gate}_{part}" for gate in GATES for part in ("weight", "bias")))
        return {name: ops.convert_to_tensor(getattr(self, name)) for name in names}

    def call(
        self,
        x: Any,
        positions: Any | None = None,
        state: Mapping[str, Any] | None = None,
        mask: Any | None = None,
        padding: str = "any",
    ) -> Any:
        """y [b t d], or (y, state) where a state is given."""
        params = self.params()
        h0 = None if state is None else state["h"]

        def run(x: Any, at: Any) -> tuple[Any, dict[str, Any]]:
            y, h = engine.rg_lru(x, params, h0, at, None, self.kernel)
            return y, {"h": h}

        return self.along_time(run, x, positions, state, mask, padding)

    def init_state(self, batch: int) -> dict[str, Any]:
        """Zeros: the state before any token."""
        h = ops.zeros((batch, self.recurrent_param.shape[0]), "float32")
        return {"h": h, POSITION: ops.zeros((batch,), "int32")}

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        fields = ("gate_blocks", "seed", "init", "kernel")
        return {**super().get_config(), **{name: getattr(self, name) for name in fields}}
