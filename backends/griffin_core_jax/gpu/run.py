"""Both passes of a call from end to end: one launch, or three where time is cut."""

from __future__ import annotations

from typing import Any

import jax

from griffin_core.errors import ConfigError
from griffin_core_jax.gpu.backward import backward
from griffin_core_jax.gpu.call import Call
from griffin_core_jax.gpu.forward import forward
from griffin_core_jax.gpu.passes import cotangents_after, states_before, total
from griffin_core_jax.gpu.plan import Plan

Plans = tuple[Plan, Plan]
"""Of the forward and of the backward pass; the rows of the second divide those of the first."""


def run_forward(call: Call, h0: jax.Array, plans: Plans, save: bool = False) -> tuple[jax.Array, ...]:
    """(y [b t d], the last state [b d]), and to ``save`` the states before each tile of the backward pass.

    Raises:
        ConfigError: the tiles of the two plans do not fit.
    """
    if plans[0].rows % plans[1].rows:
        raise ConfigError(f"tiles of {plans[0].rows} rows forward, {plans[1].rows} backward; the second must divide")
    starts = states_before(call, h0, plans[0])
    y, last, *saved = forward(call, starts, plans[0], plans[1].rows if save else None)
    return y, last[:, -1], *saved


def run_backward(
    call: Call, saved: jax.Array, dy: jax.Array, dh: jax.Array, plans: Plans
) -> tuple[tuple[jax.Array, ...], jax.Array, Any]:
    """(gradients of the inputs, dh0 [b d], that of the rate [d] or None)."""
    after = cotangents_after(call, dy, dh, plans[1])
    gradients, before, parts = backward(call, saved, dy, after, plans[1])
    return gradients, before[:, 0], None if parts is None else total(parts.reshape(1, -1, call.shape[2]))
