"""The diagonal linear recurrence, one step after another."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from griffin_core.reference.numeric import quiet, wide
from griffin_core.reference.packing import by_sequence
from griffin_core.shapes import Array


@quiet
def linear_scan(
    x: Float[Array, "b t d"],
    log_a: Float[Array, "b t d"],
    h0: Float[Array, "n d"] | None = None,
    reset: Bool[Array, "b t"] | None = None,
    starts: Int[Array, " n_1"] | None = None,
) -> tuple[Float[Array, "b t d"], Float[Array, "n d"]]:
    """h_t = exp(log_a_t) h_{t-1} + x_t; a reset selects h_t = x_t (it does not multiply, so NaN stays behind).

    Args:
        x: [b t d] what enters the state.
        log_a: [b t d] log decay in [-inf, 0]; -inf is a decay of exactly 0.
        h0: [b d] state before the first token; None is zeros.
        reset: bool [b t], tokens that see nothing before them; None is nowhere.
        starts: int [n+1], n sequences packed in one row; ``h0`` and the last state are then [n d].

    Returns:
        (y, h): float64 states after each token [b t d], and after the last [b d].
    """
    if starts is not None:
        pieces = by_sequence(
            lambda x, log_a, reset, h0: linear_scan(x, log_a, h0, reset), starts, (x, log_a, reset), (h0,)
        )
        return pieces[0], pieces[1]
    return decay_scan(wide(x), np.exp(wide(log_a)), h0, reset)


@quiet
def decay_scan(
    x: Float[Array, "b t d"],
    a: Float[Array, "b t d"],
    h0: Float[Array, "b d"] | None = None,
    reset: Bool[Array, "b t"] | None = None,
) -> tuple[Float[Array, "b t d"], Float[Array, "b d"]]:
    """``linear_scan`` given the decay itself, in float64."""
    batch, time, width = x.shape
    h = np.zeros((batch, width)) if h0 is None else np.array(h0, dtype=np.float64)
    y = np.empty((batch, time, width))
    for t in range(time):
        carried = a[:, t] * h
        if reset is not None:
            carried = np.where(reset[:, t, None], 0.0, carried)
        h = carried + x[:, t]
        y[:, t] = h
    return y, h
