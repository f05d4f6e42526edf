"""What one token does to the state, for rows of tokens: h = a h + u, or h = fresh where a document starts.

``CELL`` is "gated" (the RG-LRU after its gate products; Griffin, section 2.4), "approx" (the same with rough sigmoids;
the way back takes "gated"), "half" (with i x already taken, where x is meant) or "linear" (``linear_scan``). With
t = log2 a = rate sigmoid(gate_a), i = sigmoid(gate_x), v = i x, q = 1 - a^2 and m = sqrt(q):

    gated:   h_t = a h_{t-1} + m v;    dx = g m i;    dgate_x = g m v (1 - i)
             Q = ln 2 (t a) (h_{t-1} - v a / m) g;    dgate_a = (1 - r) Q;    dp = sigmoid(p) / softplus(p) sum Q
    linear:  h_t = a h_{t-1} + x;      dx = g;        dlog_a = a h_{t-1} g

t / m tends to 0 as a tends to 1, so all of it is finite. q does not cancel: near a = 1 it is 2 a sinh(-log a) with a
polynomial for sinh, elsewhere 1 - a a. Inputs are called x, y, z: x, gate_x, gate_a, or x, nothing, log_a.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .special import exp, exp2, reciprocal, rsqrt, tanh


@triton.jit
def sigmoid(z, BODY: tl.constexpr):
    """1 / (1 + e^-z); the argument of exp2 is rounded once, which the bound of a sigmoid allows for."""
    return reciprocal(1.0 + exp2(z * -1.4426950408889634, BODY), BODY)


@triton.jit
def gate(z, CELL: tl.constexpr, BODY: tl.constexpr):
    """A gate from its pre-activation of any dtype; for "approx" within 2^-12 of the sigmoid, with one instruction."""
    wide = z.to(tl.float32)
    return tl.fma(tanh(0.5 * wide, BODY), 0.5, 0.5) if CELL == "approx" else sigmoid(wide, BODY)


@triton.jit
def softplus(p, BODY: tl.constexpr):
    """log(1 + e^p): max(p, 0) + 2 artanh(e / (2 + e)) with e = e^-|p|, whose series ends below a unit of roundoff."""
    e = exp(-tl.abs(p), BODY)
    s = tl.div_rn(e, 2.0 + e)
    square = s * s
    series = tl.fma(square, 0.06666666666666667, 0.07692307692307693)
    series = tl.fma(series, square, 0.09090909090909091)
    series = tl.fma(series, square, 0.1111111111111111)
    series = tl.fma(series, square, 0.14285714285714285)
    series = tl.fma(series, square, 0.2)
    series = tl.fma(series, square, 0.3333333333333333)
    return tl.maximum(p, 0.0) + 2.0 * tl.fma(series * square, s, s)


@triton.jit
def decay_rate(p, BODY: tl.constexpr):
    """-8 log2(e) softplus(p): log2 a is this times the recurrence gate."""
    return -11.541560327111707 * softplus(p, BODY)


@triton.jit
def load_rate(param, channels, inside, CELL: tl.constexpr, BODY: tl.constexpr):
    """``decay_rate`` of the channels of a program."""
    rate = 0.0
    if CELL != "linear":
        rate = decay_rate(tl.load(param + channels, mask=inside, other=0.0).to(tl.float32), BODY)
    return rate


@triton.jit
def rate_slope(p, BODY: tl.constexpr):
    """sigmoid(p) / softplus(p), 1 where softplus underflows: what Q is multiplied with for the gradient in p."""
    soft = softplus(p, BODY)
    return tl.where(soft > 0.0, tl.div_rn(sigmoid(p, BODY), soft), 1.0)


@triton.jit
def remainder(t, a):
    """q = 1 - a^2 for t = log2 a <= 0, at least the smallest normal number.

    Above t = -0.6 by -2 sinh(t ln 2) / t as a polynomial in t^2 (relative error 3.3e-8), times t a.
    """
    square = t * t
    near = (t * a) * tl.fma(tl.fma(square, -0.0026832292787730694, -0.1110059842467308), square, -1.3862943649291992)
    return tl.maximum(tl.where(t > -0.6, near, tl.fma(-a, a, 1.0)), 1.1754943508222875e-38)


@triton.jit
def enter(x, y, z, rate, CELL: tl.constexpr, BODY: tl.constexpr):
    """(log2 a, a, fresh, u) of a row; inputs in any dtype, results float32. ``rate``: as ``decay_rate`` gives it."""
    wide = x.to(tl.float32)
    if CELL != "linear":
        t = rate * gate(z, CELL, BODY)
        a = exp2(t, BODY)
        q = remainder(t, a)
        fresh = wide if CELL == "half" else gate(y, CELL, BODY) * wide
        u = (q * rsqrt(q, BODY)) * fresh
    else:
        log_a = z.to(tl.float32)
        t, a = log_a * 1.4426950408889634, exp(log_a, BODY)
        fresh = wide
        u = wide
    return t, a, fresh, u


@triton.jit
def gradients(x, y, z, rate, a, g, before, reset, MARKS: tl.constexpr, CELL: tl.constexpr, BODY: tl.constexpr):
    """(dx, dy, dz, Q) of a row.

    Args:
        a: as ``enter`` gives it.
        g: gradient of the loss in h after the row.
        before: h before the row.
        reset: where a document starts; read unless ``MARKS`` is "none".
    """
    wide = x.to(tl.float32)
    if CELL != "linear":
        r, i = sigmoid(z.to(tl.float32), BODY), sigmoid(y.to(tl.float32), BODY)
        t = rate * r
        q = remainder(t, a)
        inverse = rsqrt(q, BODY)
        m = q * inverse
        fresh = i * wide
        through = (0.6931471805599453 * (t * a)) * ((before - fresh * (a * inverse)) * g)
        if MARKS != "none":
            m = tl.where(reset, 1.0, m)
            through = tl.where(reset, 0.0, through)
        through = tl.where(a == 0.0, 0.0, through)
        scaled = g * m
        dx, dy, dz = scaled * i, (scaled * fresh) * (1.0 - i), through * (1.0 - r)
    else:
        through = (a * before) * g
        if MARKS != "none":
            through = tl.where(reset, 0.0, through)
        dx, dy, dz = g, g, through
    return dx, dy, dz, through
