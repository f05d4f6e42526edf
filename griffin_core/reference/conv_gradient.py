"""The exact gradient of the depthwise causal convolution."""

from __future__ import annotations

import numpy as np

from griffin_core.checks import PAD
from griffin_core.reference.numeric import default_positions, quiet, wide
from griffin_core.reference.packing import gradients_by_sequence
from griffin_core.shapes import Array


@quiet
def conv1d_vjp(
    x: Array,
    weight: Array,
    bias: Array,
    state: Array | None,
    positions: Array | None,
    dy: Array,
    dstate: Array | None = None,
    starts: Array | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """Gradients of ``conv1d`` for cotangents ``dy`` [b t d] and ``dstate`` [b w-1 d] (None is zeros).

    Returns:
        (dx [b t d], dweight [d 1 w], dbias [d], dstate0 [b w-1 d] or None as ``state`` is), float64.
    """
    if starts is not None:
        dx, dweight, dbias, dstate0 = gradients_by_sequence(
            lambda x, positions, dy, state, dstate: conv1d_vjp(x, weight, bias, state, positions, dy, dstate),
            starts,
            (x, positions, dy),
            (state, dstate),
            ("time", "sum", "sum", "row"),
        )
        return dx, dweight, dbias, dstate0
    taps = wide(weight)[:, 0, :].T
    positions = default_positions(x, fresh=state is None) if positions is None else positions
    pad = (positions == PAD)[..., None]
    x, dy = np.where(pad, 0.0, wide(x)), np.where(pad, 0.0, wide(dy))
    seen = _windows(x, state, positions, len(taps))
    after = np.zeros((len(x), len(taps) - 1, x.shape[2])) if dstate is None else np.array(dstate, np.float64)
    dx, dtaps = np.zeros(x.shape), np.zeros(taps.shape)
    for t in reversed(range(x.shape[1])):
        dtaps += (dy[:, t, None] * seen[:, t]).sum(axis=0)
        dseen = dy[:, t, None] * taps
        dseen[:, 1:] += after
        skipped, first = pad[:, t, None], (positions[:, t] == 0)[:, None, None]
        dx[:, t] = np.where(pad[:, t], 0.0, dseen[:, -1])
        after = np.where(skipped, after, np.where(first, 0.0, dseen[:, :-1]))
    return dx, dtaps.T[:, None, :], dy.sum(axis=(0, 1)), None if state is None else after


def _windows(x: Array, state: Array | None, positions: Array, width: int) -> Array:
    """[b t w d]: what each token's taps see (the forward pass, remembered)."""
    batch, time, d = x.shape
    window = np.zeros((batch, width - 1, d)) if state is None else wide(state)
    seen = np.empty((batch, time, width, d))
    for t in range(time):
        first = (positions[:, t] == 0)[:, None, None]
        seen[:, t] = np.concatenate([np.where(first, 0.0, window), x[:, t : t + 1]], axis=1)
        window = np.where((positions[:, t] == PAD)[:, None, None], window, seen[:, t, 1:])
    return seen
