"""Right float32 loops in NumPy: the controls that the planted bugs are made from, with their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from griffin_core.checks import PAD
from griffin_core.config import RG_LRU_C
from griffin_core.shapes import Array

F = np.float32


def linear_scan(x: Array, log_a: Array, h0: Array | None = None, reset: Array | None = None) -> tuple[Array, Array]:
    """The recurrence, one step after another."""
    return scan(wide(x), np.exp(wide(log_a)), h0, reset, x.dtype)


def scan(x: Array, a: Array, h0: Array | None, reset: Array | None, dtype: Any) -> tuple[Array, Array]:
    """``linear_scan`` given the decay; float32 inside."""
    h = np.zeros((x.shape[0], x.shape[2]), F) if h0 is None else h0.copy()
    y = np.empty(x.shape, dtype)
    for t in range(x.shape[1]):
        kept = h if reset is None else np.where(reset[:, t, None], F(0), h)
        h = a[:, t] * kept + x[:, t]
        y[:, t] = h.astype(dtype)
    return y, h


def linear_scan_vjp(
    x: Array, log_a: Array, h0: Any, reset: Any, y: Array, h: Array, dy: Array, dh: Array
) -> tuple[Any, ...]:
    """Gradients of ``linear_scan``."""
    a = np.exp(wide(log_a))
    states, _ = scan(wide(x), a, h0, reset, F)
    g, dh0 = reverse(a, reset, wide(dy), dh)
    kept = np.zeros(x.shape[:2], bool) if reset is None else reset
    dlog_a = np.where(kept[..., None], F(0), g * (a * before(states, h0)))
    return g.astype(x.dtype), dlog_a.astype(log_a.dtype), None if h0 is None else dh0, None


def reverse(a: Array, reset: Any, dy: Array, dh: Array) -> tuple[Array, Array]:
    """(g, dh0): g_t = dy_t + a_{t+1} g_{t+1}."""
    carry, g = dh.astype(F), np.empty(a.shape, F)
    for t in reversed(range(a.shape[1])):
        g[:, t] = dy[:, t] + carry
        carry = a[:, t] * g[:, t]
        if reset is not None:
            carry = np.where(reset[:, t, None], F(0), carry)
    return g, carry


def before(states: Array, h0: Any) -> Array:
    """h_{t-1} for every t."""
    first = np.zeros_like(states[:, :1]) if h0 is None else h0[:, None][:, : states.shape[1]]
    return np.concatenate([first, states[:, :-1]], axis=1)


def sigmoid(z: Array) -> Array:
    """Without overflow."""
    small = np.exp(-np.abs(z))
    positive: Array = np.where(z >= 0, F(1), small) / (F(1) + small)
    return positive


def softplus(z: Array) -> Array:
    """Without overflow."""
    return np.maximum(z, F(0)) + np.log1p(np.exp(-np.abs(z)))


def multiplier(log_a: Array) -> Array:
    """sqrt(1 - a^2), without cancellation."""
    root: Array = np.sqrt(-np.expm1(F(2) * log_a))
    return root


def places(x: Array, carried: Any, positions: Any) -> Array:
    """The positions, or what None stands for."""
    if positions is not None:
        given: Array = positions
        return given
    first = 0 if carried is None else 1
    return np.broadcast_to(np.arange(first, first + x.shape[1]), x.shape[:2])


def gated_scan(
    x: Array, gate_x: Array, gate_a: Array, param: Array, h0: Any = None, positions: Any = None, **parts: Any
) -> tuple[Array, Array]:
    """The gated recurrence; ``parts`` replaces sigmoid, softplus, multiplier or that of a first token."""
    use = {"sigmoid": sigmoid, "softplus": softplus, "multiplier": multiplier, "first": lambda m: F(1), **parts}
    where = places(x, h0, positions)
    reset, pad = (where == 0)[..., None], (where == PAD)[..., None]
    log_a = F(-RG_LRU_C) * use["softplus"](wide(param)) * use["sigmoid"](wide(gate_a))
    gated = use["sigmoid"](wide(gate_x)) * wide(x)
    m = use["multiplier"](log_a)
    entering = np.where(pad, F(0), np.where(reset, use["first"](m), m) * gated)
    y, h = scan(entering, np.where(pad, F(1), np.exp(log_a)), h0, reset[..., 0], x.dtype)
    return np.where(pad, np.zeros((), x.dtype), y), h


def slope(log_a: Array) -> Array:
    """log_a / m, which tends to -sqrt(|log_a| / 2)."""
    ratio = np.where(log_a == 0, F(0.5), log_a / np.minimum(np.expm1(F(2) * log_a), -np.finfo(F).tiny))
    limit: Array = -np.sqrt(-log_a) * np.sqrt(ratio)
    return limit


def gated_scan_vjp(
    x: Array,
    gate_x: Array,
    gate_a: Array,
    param: Array,
    h0: Any,
    positions: Any,
    y: Array,
    h: Array,
    dy: Array,
    dh: Array,
) -> tuple[Any, ...]:
    """Gradients of ``gated_scan``."""
    return gated_gradients(x, gate_x, gate_a, param, h0, positions, dy, dh, slope)


def gated_gradients(
    x: Array, gate_x: Array, gate_a: Array, param: Array, h0: Any, positions: Any, dy: Array, dh: Array, rate: Any
) -> tuple[Any, ...]:
    """``gated_scan_vjp`` with ``rate`` for log_a / m."""
    where = places(x, h0, positions)
    reset, pad = (where == 0)[..., None], (where == PAD)[..., None]
    r, i = sigmoid(wide(gate_a)), sigmoid(wide(gate_x))
    log_a = F(-RG_LRU_C) * softplus(param) * r
    a, m = np.where(pad, F(1), np.exp(log_a)), np.where(reset, F(1), multiplier(log_a))
    entering = np.where(pad, F(0), m * i * wide(x))
    states, _ = scan(entering, a, h0, reset[..., 0], F)
    g, dh0 = reverse(a, reset[..., 0], np.where(pad, F(0), wide(dy)), dh)
    dx = np.where(pad, F(0), g * m * i)
    q = np.where(reset | pad, F(0), g * (log_a * a * before(states, h0) - i * wide(x) * a * a * rate(log_a)))
    dparam = sigmoid(param) / softplus(param) * q.sum(axis=(0, 1), dtype=F)
    grads = (dx, dx * wide(x) * (F(1) - i), (F(1) - r) * q)
    cast = [value.astype(like.dtype) for value, like in zip(grads, (x, gate_x, gate_a), strict=True)]
    return *cast, dparam, None if h0 is None else dh0, None


def conv1d(x: Array, weight: Array, bias: Array, state: Any = None, positions: Any = None) -> tuple[Array, Array]:
    """The causal convolution, one tap after another."""
    seen, after = windows(x, state, positions, weight.shape[-1])
    y = wide(bias) + np.zeros(x.shape, F)
    for j in range(weight.shape[-1]):
        y = y + wide(seen[:, :, j]) * wide(weight[:, 0, j])
    pad = (places(x, state, positions) == PAD)[..., None]
    return np.where(pad, F(0), y).astype(x.dtype), after


def windows(x: Array, state: Any, positions: Any, width: int) -> tuple[Array, Array]:
    """(what each tap sees [b t w d], the state after)."""
    where = places(x, state, positions)
    line = np.zeros((x.shape[0], width - 1, x.shape[2]), x.dtype) if state is None else state
    seen = np.empty((*x.shape[:2], width, x.shape[2]), x.dtype)
    for t in range(x.shape[1]):
        line_now = np.where((where[:, t] == 0)[:, None, None], np.zeros((), x.dtype), line)
        seen[:, t] = np.concatenate([line_now, x[:, t, None]], axis=1)
        line = np.where((where[:, t] == PAD)[:, None, None], line, seen[:, t, 1:])
    return seen, np.array(line)


def conv1d_vjp(
    x: Array, weight: Array, bias: Array, state: Any, positions: Any, y: Array, after: Array, dy: Array, dafter: Array
) -> tuple[Any, ...]:
    """Gradients of ``conv1d``."""
    width, where = weight.shape[-1], places(x, state, positions)
    pad = (where == PAD)[..., None]
    seen, _ = windows(np.where(pad, np.zeros((), x.dtype), x), state, positions, width)
    dy = np.where(pad, F(0), wide(dy))
    dweight = np.stack([(dy * wide(seen[:, :, j])).sum(axis=(0, 1), dtype=F) for j in range(width)], axis=-1)
    carry, dx = wide(dafter).copy(), np.zeros(x.shape, F)
    for t in reversed(range(x.shape[1])):
        dseen = dy[:, t, None] * wide(weight[:, 0]).T
        dseen[:, 1:] += carry
        dx[:, t] = np.where(pad[:, t], F(0), dseen[:, -1])
        fresh = (where[:, t] == 0)[:, None, None]
        carry = np.where(pad[:, t, None], carry, np.where(fresh, F(0), dseen[:, :-1]))
    dbias = dy.sum(axis=(0, 1), dtype=F)
    dstate = None if state is None else carry.astype(state.dtype)
    return dx.astype(x.dtype), dweight[:, None].astype(weight.dtype), dbias.astype(bias.dtype), dstate, None


def wide(x: Array) -> Array:
    """``x`` in float32."""
    return np.asarray(x, F)
