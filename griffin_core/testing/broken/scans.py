"""Planted bugs in ``linear_scan``: each is wrong in one way that a quick look does not show."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import as_strided

from griffin_core.shapes import Array
from griffin_core.testing.broken.controls import F, linear_scan, linear_scan_vjp, reverse, scan, wide

Pair = tuple[Array, Array]


def forgets_at_256(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """The second block of 256 steps starts from nothing."""
    marks = np.zeros(x.shape[:2], bool) if reset is None else reset.copy()
    marks[:, 256:257] = True
    return linear_scan(x, log_a, h0, marks)


def last_channels(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """Channels after the last whole block of 8 are not scanned."""
    y, h = linear_scan(x, log_a, h0, reset)
    whole = x.shape[2] - x.shape[2] % 8
    if whole and x.shape[1]:
        y[..., whole:], h[:, whole:] = x[..., whole:], x[:, -1, whole:]
    return y, h


def state_passes_first_reset(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """The first step loads h0 and looks at no reset."""
    if h0 is not None and reset is not None:
        reset = reset.copy()
        reset[:, :1] = False
    return linear_scan(x, log_a, h0, reset)


def bfloat16_carry(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """The state between steps is bfloat16."""
    h = np.zeros((x.shape[0], x.shape[2]), F) if h0 is None else h0
    y = np.empty_like(x)
    for t in range(x.shape[1]):
        step = None if reset is None else reset[:, t : t + 1]
        y[:, t : t + 1], h = linear_scan(x[:, t : t + 1], log_a[:, t : t + 1], h, step)
        h = wide(h.astype(ml_dtypes.bfloat16))
    return y, h


def bfloat16_decay(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """a is rounded to bfloat16."""
    return scan(wide(x), wide(np.exp(wide(log_a)).astype(ml_dtypes.bfloat16)), h0, reset, x.dtype)


def state_in_input_dtype(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """The last state is returned in x's dtype."""
    y, h = linear_scan(x, log_a, h0, reset)
    return y, h.astype(x.dtype)


def state_from_output(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """The last state is read back from y, which has been rounded."""
    y, h = linear_scan(x, log_a, h0, reset)
    return y, wide(y[:, -1]) if x.shape[1] else h


def writes_x(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """x is the scratch space."""
    y, h = linear_scan(x, log_a, h0, reset)
    x[...] = y
    return y, h


def writes_h0(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """h0 is the running state."""
    y, h = linear_scan(x, log_a, h0, reset)
    if h0 is not None:
        h0[...] = h
    return y, h


def reads_beyond(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """Steps are loaded four at a time; those beyond the end are masked by multiplying with 0."""
    y, h = linear_scan(x, log_a, h0, reset)
    whole = x.base
    if x.shape[1] % 4 and whole is not None and whole.ndim == 3 and whole.shape[1] > x.shape[1]:
        h = h + F(0) * wide(whole[:, x.shape[1]])[..., : x.shape[2]]
    return y, h


def ignores_strides(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """x is read from its first element on as if it were contiguous."""
    _, time, width = x.shape
    size = x.itemsize
    return linear_scan(as_strided(x, x.shape, (time * width * size, width * size, size)), log_a, h0, reset)


def neighbour_nan(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """x goes through a product with the identity, where 0 * NaN is NaN."""
    return linear_scan((wide(x) @ np.eye(x.shape[2], dtype=F)).astype(x.dtype), log_a, h0, reset)


def small_offsets(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """Offsets of elements overflow (16 bits stand for the 32 of a real kernel)."""
    offsets = np.arange(x.size).astype(np.uint16)
    return linear_scan(np.ascontiguousarray(x).reshape(-1)[offsets].reshape(x.shape), log_a, h0, reset)


def multiplies_at_reset(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """A reset multiplies the old state by 0, which NaN survives."""
    a = np.exp(wide(log_a))
    a = a if reset is None else a * (F(1) - reset[..., None].astype(F))
    return scan(wide(x), a, h0, None, x.dtype)


def running_products(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """h = P cumsum(x / P) with P the running product of a, in chunks of 64: P underflows."""
    if reset is not None or not x.shape[1]:
        return linear_scan(x, log_a, h0, reset)
    h = np.zeros((x.shape[0], x.shape[2]), F) if h0 is None else h0
    parts = []
    for start in range(0, x.shape[1], 64):
        products = np.cumprod(np.exp(wide(log_a[:, start : start + 64])), axis=1, dtype=F)
        part = products * (h[:, None] + np.cumsum(wide(x[:, start : start + 64]) / products, axis=1, dtype=F))
        h = part[:, -1]
        parts.append(part)
    return np.concatenate(parts, axis=1).astype(x.dtype), h


def late_reset(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """A reset takes effect one step late (the first step is right)."""
    if reset is not None:
        late = np.zeros_like(reset)
        late[:, :1], late[:, 1:] = reset[:, :1], reset[:, :-1]
        reset = late
    return linear_scan(x, log_a, h0, reset)


def reset_drops_input(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """A reset zeroes the state after the input was added."""
    return linear_scan(x if reset is None else np.where(reset[..., None], np.zeros((), x.dtype), x), log_a, h0, reset)


def stale_last(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """The last state is the one before the last step when the length is a multiple of 8."""
    y, h = linear_scan(x, log_a, h0, reset)
    if x.shape[1] and x.shape[1] % 8 == 0:
        _, h = linear_scan(x[:, :-1], log_a[:, :-1], h0, None if reset is None else reset[:, :-1])
    return y, h


def first_row_state(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """Every row starts from row 0's state."""
    return linear_scan(x, log_a, None if h0 is None else np.broadcast_to(h0[:1], h0.shape), reset)


def normalised(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """x is divided by its largest value over all time and multiplied back: the past depends on the future."""
    scale = np.abs(wide(x)).max(axis=1, keepdims=True, initial=1e-3)
    return scan(wide(x) / scale * scale, np.exp(wide(log_a)), h0, reset, x.dtype)


def random_rounding(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """The order of additions differs from run to run."""
    order = np.random.default_rng().random(x.shape) < 0.5
    nudged = np.where(order, np.nextafter(wide(x), F(np.inf)), wide(x))
    return scan(nudged, np.exp(wide(log_a)), h0, reset, x.dtype)


def clipped_decay(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """log a is clipped at -8, so a is never 0."""
    return linear_scan(x, np.maximum(log_a, np.asarray(-8, log_a.dtype)), h0, reset)


def needs_a_token(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """The first step is peeled off, even when there is none."""
    first = np.zeros_like(wide(x[:, 0])) if h0 is None else h0
    return linear_scan(x, log_a, first, reset)


def one_step_path(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """The short cut for one step forgets the reset."""
    return linear_scan(x, log_a, h0, None if x.shape[1] == 1 else reset)


def saturates(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> Pair:
    """y is clipped at 5, which normal inputs seldom reach."""
    y, h = linear_scan(x, log_a, h0, reset)
    return np.clip(y, np.asarray(-5, y.dtype), np.asarray(5, y.dtype)), h


def no_h0_gradient(*arguments: Any) -> tuple[Any, ...]:
    """The gradient of h0 is 0."""
    dx, dlog_a, dh0, none = linear_scan_vjp(*arguments)
    return dx, dlog_a, None if dh0 is None else np.zeros_like(dh0), none


def drops_state_cotangent(*arguments: Any) -> tuple[Any, ...]:
    """What arrives at the last state is forgotten."""
    *kept, dh = arguments
    found: tuple[Any, ...] = linear_scan_vjp(*(*kept, np.zeros_like(dh)))
    return found


def gradient_crosses_reset(*arguments: Any) -> tuple[Any, ...]:
    """The reverse scan does not stop at document starts."""
    x, log_a, h0, _, _, _, dy, dh = arguments
    _, dlog_a, _, none = linear_scan_vjp(*arguments)
    g, dh0 = reverse(np.exp(wide(log_a)), None, wide(dy), dh)
    return g.astype(x.dtype), dlog_a, None if h0 is None else dh0, none


def gradient_by_subtraction(*arguments: Any) -> tuple[Any, ...]:
    """a h_{t-1} is recovered as y - x."""
    x, y = arguments[0], arguments[4]
    dx, dlog_a, dh0, none = linear_scan_vjp(*arguments)
    return dx, (wide(dx) * (wide(y) - wide(x))).astype(dlog_a.dtype), dh0, none


def nan_gradient_at_zero(*arguments: Any) -> tuple[Any, ...]:
    """The gradient is made for a and carried to log a by dividing by log a."""
    dx, dlog_a, dh0, none = linear_scan_vjp(*arguments)
    log_a = wide(arguments[1])
    return dx, (wide(dlog_a) * log_a / log_a).astype(dlog_a.dtype), dh0, none
