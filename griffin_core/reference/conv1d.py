"""The depthwise causal convolution, with a state and with resets."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from griffin_core.checks import PAD
from griffin_core.reference.numeric import default_positions, quiet, wide
from griffin_core.reference.packing import by_sequence
from griffin_core.shapes import Array


@quiet
def conv1d(
    x: Float[Array, "b t d"],
    weight: Float[Array, "d 1 w"],
    bias: Float[Array, " d"],
    state: Float[Array, "n w_1 d"] | None = None,
    positions: Int[Array, "b t"] | None = None,
    starts: Int[Array, " n_1"] | None = None,
) -> tuple[Float[Array, "b t d"], Float[Array, "n w_1 d"]]:
    """y_t = bias + sum_j weight[j] x_{t-(w-1)+j}, over the tokens of t's own document.

    Args:
        x: [b t d] inputs.
        weight: [d 1 w], tap w-1 on the current token.
        bias: [d].
        state: [b w-1 d] the inputs before the first, oldest first; None is zeros.
        positions: int [b t]: 0 starts a document (nothing before it is seen), -1 is padding (skipped,
            output 0). None starts no document inside; with ``state=None`` that is a new one.
        starts: int [n+1], n sequences packed in one row; ``state`` is then [n w-1 d].

    Returns:
        (y, state): float64 [b t d], and the last w-1 inputs [b w-1 d].
    """
    if starts is not None:
        return _packed(x, weight, bias, state, positions, starts)
    x, taps, offset = wide(x), wide(weight)[:, 0, :].T, wide(bias)
    batch, time, width = x.shape
    window = np.zeros((batch, len(taps) - 1, width)) if state is None else np.array(state, dtype=np.float64)
    positions = default_positions(x, fresh=state is None) if positions is None else positions
    y = np.empty((batch, time, width))
    for t in range(time):
        pad = (positions[:, t] == PAD)[:, None]
        first = (positions[:, t] == 0)[:, None, None]
        seen = np.concatenate([np.where(first, 0.0, window), x[:, t : t + 1]], axis=1)  # [b w d]
        y[:, t] = np.where(pad, 0.0, offset + (seen * taps).sum(axis=1))
        window = np.where(pad[..., None], window, seen[:, 1:])
    return y, window


def _packed(
    x: Array, weight: Array, bias: Array, state: Array | None, positions: Array | None, starts: Array
) -> tuple[Array, Array]:
    pieces = by_sequence(
        lambda x, positions, state: conv1d(x, weight, bias, state, positions), starts, (x, positions), (state,)
    )
    return pieces[0], pieces[1]
