"""``conv1d`` as w shifted products."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax, vmap

from griffin_core.checks import PAD
from griffin_core_jax.devices import settled
from griffin_core_jax.scan.loop import wide_dtype


def conv1d(
    x: Array, weight: Array, bias: Array, state: Array | None = None, positions: Array | None = None
) -> tuple[Array, Array]:
    """y_t = bias + sum_j weight[j] x_{t-(w-1)+j} over the tokens of t's own document, summed in float32.

    A token at position p of its document has p tokens before it there, so tap distance k is seen where p >= k, or
    where no document has started in this call yet: then the state is seen.

    Args:
        x: [b t d].
        weight: [d 1 w].
        bias: [d].
        state: [b w-1 d] or None.
        positions: int [b t], right-padded, or None.

    Returns:
        (y [b t d], state [b w-1 d]) in x's dtype.
    """
    (batch, time, width), taps, wide = x.shape, weight.shape[-1], wide_dtype(x)
    before = jnp.zeros((batch, taps - 1, width), x.dtype) if state is None else state.astype(x.dtype)
    # Wide once for all: the gradients that a token gets, by its taps and by the state, are then summed in float32.
    line = jnp.concatenate([before, x], axis=1).astype(wide)
    total = jnp.broadcast_to(bias.astype(wide), x.shape)
    going_on = None if positions is None else (positions != PAD) & (jnp.cumsum(positions == 0, axis=1) == 0)
    for back in range(taps):
        start = taps - 1 - back
        seen = lax.slice_in_dim(line, start, start + time, axis=1)
        if positions is not None:  # padding has -1 and sees nothing
            seen = jnp.where(((positions >= back) | going_on)[..., None], seen, 0.0)
        total = total + weight[:, 0, start].astype(wide) * seen
    if positions is None:
        return settled(total.astype(x.dtype)), line[:, time:].astype(x.dtype)
    total = jnp.where((positions == PAD)[..., None], 0.0, total)
    return settled(total.astype(x.dtype)), _last(line, positions, taps).astype(x.dtype)


def _last(line: Array, positions: Array, taps: int) -> Array:
    """The last w-1 inputs of each row's last document, oldest first; zeros before its start."""
    count = (positions != PAD).sum(axis=1)
    tail = vmap(lambda values, at: lax.dynamic_slice_in_dim(values, at, taps - 1, axis=0))(line, count)
    if not positions.shape[1]:
        return tail
    final = jnp.take_along_axis(positions, jnp.maximum(count - 1, 0)[:, None], axis=1)  # [b 1]
    distance = taps - 2 - jnp.arange(taps - 1)  # of each slot to the last token
    inside = (distance <= final) | ~(positions == 0).any(axis=1, keepdims=True)
    return jnp.where(inside[..., None], tail, 0.0)
