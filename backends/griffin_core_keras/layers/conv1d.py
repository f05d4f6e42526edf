"""The depthwise causal convolution with its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from griffin_core.layouts.states import POSITION
from griffin_core_keras.engine import engine
from griffin_core_keras.layers.base import draws, register
from griffin_core_keras.layers.temporal import Temporal


@register
class CausalConv1D(Temporal):
    """Depthwise causal convolution over time; nothing crosses a document's start.

    Args:
        kernel_size: taps w; tap w-1 is on the current token.
        seed: of the initial weights; None is zeros.
        kernel: name of a kernel, or None for GRIFFIN_KERNEL or the first that can run the call.

    Call arguments:
        x: [b t d].
        positions: int32 [b t], 0 starts a document, -1 is padding. None: tokens continue the state, or start one.
        state: {"conv": [b w-1 d], "position": int32 [b]}: inputs before x, oldest first, and the next token's place
            in its document. With it the call returns (y, state).
        mask: bool [b t], False at padding, which may stand anywhere.
        padding: "right" promises that padding stands at the ends of rows.
    """

    def __init__(self, kernel_size: int = 4, seed: int | None = 0, kernel: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_size, self.seed, self.kernel = kernel_size, seed, kernel

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """weight [d 1 w] and bias [d]."""
        width, taps = input_shape[-1], self.kernel_size
        initial = draws("conv_1d.weight", self.seed, std=(0.01 / taps) ** 0.5)
        self.weight = self.add_weight(name="weight", shape=(width, 1, taps), initializer=initial)
        self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")

    def call(
        self,
        x: Any,
        positions: Any | None = None,
        state: Mapping[str, Any] | None = None,
        mask: Any | None = None,
        padding: str = "any",
    ) -> Any:
        """y [b t d], or (y, state) where a state is given."""
        weight, bias = ops.convert_to_tensor(self.weight), ops.convert_to_tensor(self.bias)
        before = None if state is None else state["conv"]

        def run(x: Any, at: Any) -> tuple[Any, dict[str, Any]]:
            y, after = engine.conv1d(x, weight, bias, before, at, None, self.kernel)
            return y, {"conv": after}

        return self.along_time(run, x, positions, state, mask, padding)

    def init_state(self, batch: int, dtype: str | None = None) -> dict[str, Any]:
        """Zeros: the state before any token."""
        width = self.weight.shape[0]
        before = ops.zeros((batch, self.kernel_size - 1, width), dtype or self.compute_dtype)
        return {"conv": before, POSITION: ops.zeros((batch,), "int32")}

    def get_config(self) -> dict[str, Any]:
        """Every argument."""
        return {**super().get_config(), "kernel_size": self.kernel_size, "seed": self.seed, "kernel": self.kernel}
