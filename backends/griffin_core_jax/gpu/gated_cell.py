"""The RG-LRU after its gate products (Griffin, section 2.4). Inputs: x, gate_x, gate_a; per channel: rate.

With t = log2 a = rate sigmoid(gate_a), i = sigmoid(gate_x), v = i x, q = 1 - a^2 and m = sqrt(q):

    h_t = a h_{t-1} + m v;    dx = g m i;    dgate_x = g m v (1 - i)
    Q = ln 2 (t a) (h_{t-1} - v a / m) g;    dgate_a = (1 - r) Q;    drecurrent_param = sigmoid(p) / softplus(p) sum Q

t / m tends to 0 as a tends to 1, so all of it is finite. q does not cancel: near a = 1 it is 2 a sinh(-log a) with a
polynomial for sinh, elsewhere 1 - a a.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from griffin_core.config import RG_LRU_C
from griffin_core_jax.gpu.cell import Cell, Entry, Row

LN2, LOG2E = math.log(2.0), 1.0 / math.log(2.0)
_SMALLEST = 2.0**-126
_NEAR_ONE = -0.6
"""Above this log2 a, q comes from sinh: both sides lose less than 2.5 units of roundoff there."""
_SINH = (-1.3862943649291992, -0.1110059842467308, -0.0026832292787730694)
"""q / (t a) as a polynomial in t^2: -2 sinh(t ln 2) / t, relative error 3.3e-8 (0.54 units of roundoff)."""


def decay_rate(recurrent_param: jax.Array) -> jax.Array:
    """-8 log2(e) softplus(p), float32 [d]: log2 a is this times the recurrence gate. Once per channel, in XLA."""
    return (-RG_LRU_C * LOG2E) * jax.nn.softplus(recurrent_param.astype(jnp.float32))


def sigmoid(z: Row) -> Row:
    """1 / (1 + e^-z) in float32. Not by exp2 of a product: that errs by |z| units of roundoff."""
    return 1.0 / (1.0 + jnp.exp(-z.astype(jnp.float32)))


def _log(gate_a: Row, rate: Any) -> Row:
    log: Row = sigmoid(gate_a) * rate
    return log


def _remainder(t: Row, a: Row) -> Row:
    """q = 1 - a^2 for t = log2 a, at least the smallest normal number."""
    square, t2 = a * a, t * t
    near = t * a * (_SINH[0] + t2 * (_SINH[1] + t2 * _SINH[2]))
    return jnp.maximum(jnp.where(t > _NEAR_ONE, near, 1.0 - square), _SMALLEST)


def _enter(values: tuple[Row, ...], rate: Any) -> Entry:
    x, gate_x, gate_a = values
    t = _log(gate_a, rate)
    a = jnp.exp2(t)
    q = _remainder(t, a)
    inverse = jax.lax.rsqrt(q)
    opened = sigmoid(gate_x)
    v = opened * x.astype(jnp.float32)
    m = q * inverse
    return Entry(a, m * v, v, (t, m, inverse, opened))


def _gradients(
    entry: Entry, values: tuple[Row, ...], g: Row, before: Row, reset: Row | None
) -> tuple[tuple[Row, ...], Row]:
    t, m, inverse, opened = entry.kept
    a = entry.a if reset is None else jnp.where(reset, 0.0, entry.a)
    scaled = g * (m if reset is None else jnp.where(reset, 1.0, m))
    through = LN2 * (t * a) * (before - entry.fresh * a * inverse) * g
    through = jnp.where(a == 0.0, 0.0, through)  # what stands before a reset may be NaN
    shut = 1.0 - sigmoid(values[2])
    return (scaled * opened, scaled * entry.fresh * (1.0 - opened), through * shut), through


CELL = Cell("gated_scan", (0.0, 0.0, -math.inf), 2, LN2, True, _log, jnp.exp2, _enter, _gradients)
