"""Running error analysis: a float64 value carried together with a bound on its float32 error.

Each operation gives what a right float32 evaluation of it can lose, whatever the order of its sums:

======================= ==============================================================================
rounding                u |result|, u = 2^-24
product, sum            the operands' errors times their partners, plus one rounding
sum of n terms          n u sum |terms|, any order
e^z                     (2 + |z|) u: the argument is rounded once more where exp is made of exp2
sigmoid, softplus       that, damped by how much e^-|z| matters to the result, and 3 roundings
underflow               the smallest normal: below it float32 may be flushed to zero
======================= ==============================================================================

Monotone functions take the exact change over the argument's interval, not a linearisation, so the bounds hold
where a is 1 to the last bit and where a gate underflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from griffin_core.shapes import SMALLEST_NORMAL, UNIT_ROUNDOFF, Array
from griffin_core.testing.tolerance import TINY, U


@dataclass(frozen=True)
class Approx:
    """A value in float64 and the largest error of its float32 evaluation, elementwise."""

    value: Array
    error: Array

    def __getitem__(self, index: Any) -> Approx:
        return Approx(self.value[index], self.error[index])

    def __add__(self, other: Approx) -> Approx:
        value = self.value + other.value
        return Approx(value, self.error + other.error + U * np.abs(value))

    def __mul__(self, other: Approx) -> Approx:
        value = self.value * other.value
        carried = np.abs(self.value) * other.error + np.abs(other.value) * self.error + self.error * other.error
        return Approx(value, carried + U * np.abs(value) + TINY)

    def scaled(self, factor: float) -> Approx:
        """Times an exact number."""
        return Approx(factor * self.value, abs(factor) * (self.error + U * np.abs(self.value)))

    def stored(self, dtype: str) -> Approx:
        """Rounded once to a dtype narrower than float32 (float32 itself: nothing)."""
        if dtype not in ("float16", "bfloat16"):
            return self
        lost = UNIT_ROUNDOFF[dtype] * (np.abs(self.value) + self.error) + SMALLEST_NORMAL[dtype]
        return Approx(self.value, self.error + lost)

    def reshape(self, *shape: int) -> Approx:
        """Another shape of the same elements."""
        return Approx(self.value.reshape(*shape), self.error.reshape(*shape))

    def total(self, axis: tuple[int, ...]) -> Approx:
        """The sum over some axes, in any order."""
        terms = int(np.prod([self.value.shape[i] for i in axis]))
        magnitude = np.abs(self.value).sum(axis=axis)
        return Approx(self.value.sum(axis=axis), self.error.sum(axis=axis) + terms * U * magnitude)


def exact(x: Array) -> Approx:
    """A given input: no error."""
    value = np.asarray(x, np.float64)
    return Approx(value, np.zeros_like(value))


def select(mask: Array, chosen: Approx, other: Approx) -> Approx:
    """``chosen`` where the mask is true; nothing of the other side comes through."""
    return Approx(np.where(mask, chosen.value, other.value), np.where(mask, chosen.error, other.error))


def where_zero(mask: Array, x: Approx) -> Approx:
    """``x``, exactly 0 where the mask is true."""
    return Approx(np.where(mask, 0.0, x.value), np.where(mask, 0.0, x.error))


def flip(x: Approx) -> Approx:
    """Time (axis 1) reversed."""
    return x[:, ::-1]


def einsum(form: str, left: Approx, right: Approx, terms: int) -> Approx:
    """A product of matrices whose sums have ``terms`` terms, accumulated in float32 in any order."""
    size, other = np.abs(left.value), np.abs(right.value)
    magnitude = np.einsum(form, size, other)
    carried = np.einsum(form, size, right.error) + np.einsum(form, left.error, other + right.error)
    return Approx(np.einsum(form, left.value, right.value), carried + (terms + 1) * U * magnitude)


def biased(product: Approx, bias: Approx, terms: int) -> Approx:
    """A sum of ``terms`` products and a bias, which may come first or last."""
    total = product + bias
    return Approx(total.value, total.error + terms * U * np.abs(bias.value))


def sigmoid(z: Approx) -> Approx:
    """1 / (1 + e^-z)."""
    size = np.abs(z.value)
    value, far = _sigmoid(z.value), _sigmoid(-z.value)
    rounding = U * value * (3.0 + (2.0 + size) * far)
    spread = np.maximum(_sigmoid(z.value + z.error) - value, value - _sigmoid(z.value - z.error))
    return Approx(value, spread + rounding + TINY)


def softplus(z: Array) -> Approx:
    """log(1 + e^z) of an exact argument."""
    z = np.asarray(z, np.float64)
    value = np.logaddexp(0.0, z)
    return Approx(value, U * (3.0 * value + (2.0 + np.abs(z)) * _sigmoid(-np.abs(z))) + TINY)


def one_minus(x: Approx) -> Approx:
    """1 - x."""
    return Approx(1.0 - x.value, x.error + U)


def decay(log_a: Approx) -> Approx:
    """a = e^log_a for log_a <= 0, with the error of the argument only; the scan counts exp's own rounding."""
    value = np.exp(log_a.value)
    return Approx(value, value * np.expm1(log_a.error) + U * np.abs(log_a.value) * value)


def multiplier(log_a: Approx) -> Approx:
    """m = sqrt(1 - a^2) = sqrt(-expm1(2 log_a)): 4 roundings, and the spread over log_a's interval."""
    return _over_interval(lambda size: np.sqrt(-np.expm1(-2.0 * size)), log_a, roundings=4)


def decay_over_multiplier(log_a: Approx) -> Approx:
    """-log_a a^2 / m, which tends to 0 as a tends to 1: 8 roundings, and the spread over log_a's interval."""

    def function(size: Array) -> Array:
        safe = np.maximum(size, np.finfo(np.float64).tiny)
        return np.where(size > 0, safe * np.exp(-2.0 * safe) / np.sqrt(-np.expm1(-2.0 * safe)), 0.0)

    return _over_interval(function, log_a, roundings=8)


def _over_interval(function: Any, log_a: Approx, roundings: int) -> Approx:
    size = -log_a.value
    value = function(size)
    low, high = function(np.maximum(size - log_a.error, 0.0)), function(size + log_a.error)
    spread = np.maximum(np.abs(high - value), np.abs(value - low))
    return Approx(value, spread + U * (roundings + 2.0 * size) * value)


def scan(a: Approx, x: Approx, h0: Approx, reset: Array) -> tuple[Approx, Approx]:
    """(h, previous h) of h_t = a_t h_{t-1} + x_t, with the bound every scan is held to:

    E_t = a_t E_{t-1} + u (4 |a_t h_{t-1}| + 2 |h_t|), and what a and x bring along. At a reset a_t is 0.

    Args:
        a, x: [b t d]; h0: [b d]; reset: bool [b t].
    """
    h, previous = Approx(np.empty_like(x.value), np.empty_like(x.value)), []
    state = h0
    for t in range(x.value.shape[1]):
        previous.append(state)
        gone = reset[:, t, None]
        kept = np.where(gone, 0.0, a.value[:, t] * state.value)
        value = kept + x.value[:, t]
        carried = a.value[:, t] * state.error + a.error[:, t] * (np.abs(state.value) + state.error)
        error = np.where(gone, 0.0, carried + TINY * np.abs(state.value))
        error += x.error[:, t] + U * (4.0 * np.abs(kept) + 2.0 * np.abs(value)) + TINY
        state = Approx(value, error)
        h.value[:, t], h.error[:, t] = value, error
    empty = np.empty((x.value.shape[0], 0, x.value.shape[2]))
    values = np.stack([p.value for p in previous], axis=1) if previous else empty
    errors = np.stack([p.error for p in previous], axis=1) if previous else empty
    return h, Approx(values, errors)


def _sigmoid(z: Array) -> Array:
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)
