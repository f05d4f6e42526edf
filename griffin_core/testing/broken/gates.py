"""Planted bugs in ``gated_scan`` and ``conv1d``."""

from __future__ import annotations

from typing import Any

import numpy as np

from griffin_core.checks import PAD
from griffin_core.shapes import Array
from griffin_core.testing.broken.controls import (
    F,
    conv1d,
    conv1d_vjp,
    gated_gradients,
    gated_scan,
    gated_scan_vjp,
    multiplier,
    places,
    sigmoid,
    wide,
    windows,
)

Pair = tuple[Array, Array]


def cancelling_multiplier(*arguments: Any) -> Pair:
    """sqrt(1 - exp(2 log a)) in float32: nothing is left of it as a approaches 1."""
    return gated_scan(*arguments, multiplier=lambda log_a: np.sqrt(np.maximum(F(1) - np.exp(F(2) * log_a), F(0))))


def squared_multiplier(*arguments: Any) -> Pair:
    """sqrt(1 - a a), where a has been rounded."""
    return gated_scan(*arguments, multiplier=lambda log_a: np.sqrt(np.maximum(F(1) - np.exp(log_a) ** 2, F(0))))


def naive_softplus(*arguments: Any) -> Pair:
    """log(1 + e^p): the sum loses a small e^p."""
    return gated_scan(*arguments, softplus=lambda p: np.log(F(1) + np.exp(p)))


def overflowing_sigmoid(*arguments: Any) -> Pair:
    """e^z / (1 + e^z) is inf / inf for large z."""
    return gated_scan(*arguments, sigmoid=lambda z: np.exp(z) / (F(1) + np.exp(z)))


def narrow_gates(x: Array, *arguments: Any) -> Pair:
    """Gates are rounded to the dtype of x."""
    return gated_scan(x, *arguments, sigmoid=lambda z: wide(sigmoid(z).astype(x.dtype)))


def multiplier_at_reset(*arguments: Any) -> Pair:
    """A document's first input is scaled by sqrt(1 - a^2) like any other."""
    return gated_scan(*arguments, first=lambda m: m)


def no_start_by_default(
    x: Array, gate_x: Array, gate_a: Array, param: Array, h0: Any = None, positions: Any = None
) -> Pair:
    """Without positions and state, token 0 does not start a document."""
    if positions is None and h0 is None:
        positions = 1 + np.broadcast_to(np.arange(x.shape[1]), x.shape[:2])
    return gated_scan(x, gate_x, gate_a, param, h0, positions)


def padding_decays(x: Array, gate_x: Array, gate_a: Array, param: Array, h0: Any = None, positions: Any = None) -> Pair:
    """Padding adds nothing but lets the state decay."""
    where = places(x, h0, positions)
    pad = (where == PAD)[..., None]
    y, h = gated_scan(
        np.where(pad, np.zeros((), x.dtype), x), gate_x, gate_a, param, h0, np.where(where == PAD, 1, where)
    )
    return np.where(pad, np.zeros((), x.dtype), y), h


def padding_shows_state(
    x: Array, gate_x: Array, gate_a: Array, param: Array, h0: Any = None, positions: Any = None
) -> Pair:
    """The output at padding is the state, not 0."""
    y, h = gated_scan(x, gate_x, gate_a, param, h0, positions)
    pad = (places(x, h0, positions) == PAD)[..., None]
    return np.where(pad, h[:, None].astype(y.dtype), y), h


def infinite_slope(*arguments: Any) -> tuple[Any, ...]:
    """log a / m is divided out, and is 0 / 0 where a is 1."""
    x, gate_x, gate_a, param, h0, positions, _, _, dy, dh = arguments
    return gated_gradients(x, gate_x, gate_a, param, h0, positions, dy, dh, lambda log_a: log_a / multiplier(log_a))


def clipped_slope(*arguments: Any) -> tuple[Any, ...]:
    """The square root's derivative is clipped at 1000."""
    x, gate_x, gate_a, param, h0, positions, _, _, dy, dh = arguments
    return gated_gradients(
        x, gate_x, gate_a, param, h0, positions, dy, dh, lambda log_a: log_a / np.maximum(multiplier(log_a), F(5e-4))
    )


def first_row_gradient(*arguments: Any) -> tuple[Any, ...]:
    """The decay parameter's gradient is that of the first row."""
    found = list(gated_scan_vjp(*arguments))
    first = [x if x is None or x.ndim == 1 else x[:1] for x in arguments]
    found[3] = gated_scan_vjp(*first)[3]
    return tuple(found)


def conv_keeps_old_state(x: Array, weight: Array, bias: Array, state: Any = None, positions: Any = None) -> Pair:
    """The state holds the last inputs, those of an earlier document among them."""
    y, _ = conv1d(x, weight, bias, state, positions)
    where = places(x, state, positions)
    _, after = windows(x, state, np.where(where == 0, 1, where) if positions is not None else None, weight.shape[-1])
    return y, after


def conv_short_state(x: Array, weight: Array, bias: Array, state: Any = None, positions: Any = None) -> Pair:
    """Fewer inputs than the state holds: the rest is 0 instead of what was there."""
    y, after = conv1d(x, weight, bias, state, positions)
    after[:, : max(0, after.shape[1] - x.shape[1])] = 0
    return y, after


def conv_sees_across(x: Array, weight: Array, bias: Array, state: Any = None, positions: Any = None) -> Pair:
    """Outputs look back into the earlier document; the state is right."""
    where = places(x, state, positions)
    y, _ = conv1d(x, weight, bias, state, np.where(where == 0, 1, where))
    return y, conv1d(x, weight, bias, state, positions)[1]


def conv_late_bias(x: Array, weight: Array, bias: Array, state: Any = None, positions: Any = None) -> Pair:
    """The first tokens of a sequence without a state get no bias."""
    y, after = conv1d(x, weight, bias, state, positions)
    if state is None:
        y[:, : weight.shape[-1] - 1] -= bias
    return y, after


def conv_padding_shifts(x: Array, weight: Array, bias: Array, state: Any = None, positions: Any = None) -> Pair:
    """Padding pushes zeros into the state."""
    y, after = conv1d(x, weight, bias, state, positions)
    pads = (places(x, state, positions) == PAD).sum(axis=1)
    for row, n in enumerate(pads):
        moved = np.zeros_like(after[row])
        if n < len(moved):
            moved[: len(moved) - n] = after[row, n:]
        after[row] = moved
    return y, after


def conv_narrow_sum(x: Array, weight: Array, bias: Array, state: Any = None, positions: Any = None) -> Pair:
    """Taps are added in the dtype of x."""
    seen, after = windows(x, state, positions, weight.shape[-1])
    y = np.broadcast_to(bias, x.shape).astype(x.dtype)
    for j in range(weight.shape[-1]):
        y = (y + (seen[:, :, j] * weight[:, 0, j]).astype(x.dtype)).astype(x.dtype)
    return np.where((places(x, state, positions) == PAD)[..., None], np.zeros((), x.dtype), y), after


def conv_no_state_gradient(*arguments: Any) -> tuple[Any, ...]:
    """The gradient stops at the state that came in."""
    *found, dstate, none = conv1d_vjp(*arguments)
    return *found, None if dstate is None else np.zeros_like(dstate), none
