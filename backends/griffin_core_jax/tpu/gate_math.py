"""The gates of the RG-LRU inside a kernel: few instructions, and float32's own accuracy where it is promised.

With t = log2 a = rate sigmoid(gate_a), d = 1 + exp(-gate_x) and q = 1 - a^2, the scan's input is sqrt(q) / d times x.
The transcendental unit gives exp2, log2, 1/x, 1/sqrt(x) and tanh of a register; how good they are differs:

refined   v4, v5e, v5p: the compiler itself spends a Newton step after 1/x and 1/sqrt(x) to call them full precision. So
          do we, with fewer instructions: 1/d and 1/sqrt(q) start from the unit's values and share one correction.
direct    v6e, TPU7x: the compiler takes the unit's 1/x and 1/sqrt(x) as they are. So do we.
approx    any: sigmoid and 1 - a^2 by tanh, square root by exp2 and log2, nothing corrected. By name only.

q does not cancel: near a = 1 it is 2 a sinh(-log a) with a polynomial for sinh, elsewhere 1 - a a.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from griffin_core.config import RG_LRU_C
from griffin_core.errors import ConfigError, nearest
from griffin_core_jax.tpu.chips import Chip
from griffin_core_jax.tpu.interpret import mode

Form = Literal["refined", "direct", "approx"]
Terms = tuple[jax.Array, jax.Array]
"""float32 [1 w] twice: the rows of ``channel_terms``."""
FULL_PRECISION_UNITS = ("v6e", "tpu7x")
"""Generations whose 1/x and 1/sqrt(x) the compiler (libtpu 0.0.51) corrects no further."""

LN2, LOG2E = 0.6931471805599453, 1.4426950408889634
_SMALLEST = 2.0**-126
_LARGEST_EXPONENT = 125.9
"""e^-z is held below 2^125.9, whose reciprocal is a normal number with room for roundings."""
_SLOWEST, _FASTEST = -(2.0**-120), -(2.0**60)
"""Rates are held between these: recurrent_param from about -86 to 1e17."""
_NEAR_ONE = -0.6
"""Above this log2 a, q comes from sinh: both sides lose less than 2.6 units of roundoff."""
_SINH = (-1.3862943649291992, -0.1110059842467308, -0.0026832292787730694)
"""q / (t a) as a polynomial in t^2: -2 sinh(t ln 2) / t, relative error 3.3e-8 (0.54 units of roundoff)."""
_FORGET = -2000.0
"""log2 a at a reset: a is 0 and q is 1."""


class Decay(NamedTuple):
    """What the recurrence gate says, all [16 w] float32.

    Attributes:
        gate: r = sigmoid(gate_a).
        t: log2 a.
        a: the decay.
        ta: t a.
        q: 1 - a^2, never 0 but where skipped, or in the approximate form.
    """

    gate: jax.Array
    t: jax.Array
    a: jax.Array
    ta: jax.Array
    q: jax.Array


class Entry(NamedTuple):
    """How x enters the state, all [16 w] float32.

    Attributes:
        gate: i = sigmoid(gate_x).
        inverse: 1 / m, where m = sqrt(q).
        scale: m i.
    """

    gate: jax.Array
    inverse: jax.Array
    scale: jax.Array


def form_for(chip: Chip, approx: bool = False) -> Form:
    """The form of the gates on a generation."""
    if approx:
        return "approx"
    return "direct" if chip.name in FULL_PRECISION_UNITS else "refined"


def check_form(form: str) -> None:
    """Refuse an unknown form.

    Raises:
        ConfigError: no such form.
    """
    if form not in get_args(Form):
        raise ConfigError(f"unknown form of the gates {form!r}; {nearest(form, get_args(Form))}")


def channel_terms(recurrent_param: jax.Array) -> jax.Array:
    """What a kernel reads of p, float32 [2 d], once per channel and in XLA.

    Row 0, the rate: -8 log2(e) softplus(p), so that log2 a is this times the recurrence gate. Row 1, the largest
    exponent that the gate's e^-z may have: log2 a then stays a normal number, and so does 1 - a^2.
    """
    p = recurrent_param.astype(jnp.float32)
    soft = jnp.maximum(p, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(p)))
    rate = jnp.clip(-RG_LRU_C * LOG2E * soft, _FASTEST, _SLOWEST)
    return jnp.stack([rate, _LARGEST_EXPONENT + jnp.minimum(0.0, jnp.log2(-rate))])


def softplus_slope(recurrent_param: jax.Array) -> jax.Array:
    """sigmoid(p) / softplus(p), float32; 1 where softplus underflows."""
    p = recurrent_param.astype(jnp.float32)
    small = jnp.exp(-jnp.abs(p))
    soft = jnp.maximum(p, 0.0) + jnp.log1p(small)
    open_part = jnp.where(p >= 0, 1.0, small) / (1.0 + small)
    return jnp.where(soft > 0, open_part / jnp.where(soft > 0, soft, 1.0), 1.0)


def decay(form: Form, gate_a: jax.Array, terms: Terms, reset: jax.Array | None, skip: jax.Array | None) -> Decay:
    """The decay of one group of rows.

    Args:
        form: how.
        gate_a: float32 [16 w] pre-activation.
        terms: the two rows of ``channel_terms``.
        reset, skip: bool [16 1], or None for nowhere: a is 0 and q is 1 at a reset, a is 1 where skipped.
    """
    gate = _sigmoid(form, gate_a, terms[1])
    t = terms[0] * gate
    if reset is not None:
        t = jnp.where(skip, 0.0, jnp.where(reset, _FORGET, t))
    a = jnp.exp2(t)
    ta, square = t * a, a * a
    if form == "approx":
        return Decay(gate, t, a, ta, jnp.tanh(-LN2 * t) * (1.0 + square))
    t2 = t * t
    near = ta * (_SINH[0] + t2 * (_SINH[1] + t2 * _SINH[2]))
    q = jnp.where(t > _NEAR_ONE, near, 1.0 - square)
    return Decay(gate, t, a, ta, jnp.maximum(q, _SMALLEST) if form == "direct" else q)


def entering(form: Form, gate_x: jax.Array, q: jax.Array) -> jax.Array:
    """m i [16 w], for the forward pass: fewer instructions than ``entry``."""
    if form != "refined":
        return _sqrt(form, q) * _sigmoid(form, gate_x)
    d = _denominator(gate_x)
    inverse, shut = _inverse_sqrt_guess(q), _reciprocal_guess(d)
    root = q * inverse
    return (root * shut) * (2.5 - (0.5 * (root * inverse) + d * shut))  # both Newton steps, to first order in each


def entry(form: Form, gate_x: jax.Array, q: jax.Array) -> Entry:
    """The parts of m i, for the backward pass."""
    gate = _sigmoid(form, gate_x)
    if form == "refined":
        guess = _inverse_sqrt_guess(q)
        inverse = guess * (1.5 - 0.5 * (q * guess) * guess)
    elif form == "direct":
        inverse = jax.lax.rsqrt(q)
    else:
        q = jnp.maximum(q, _SMALLEST)
        inverse = _inverse_sqrt_guess(q)
    return Entry(gate, inverse, (q * inverse) * gate)


def _sigmoid(form: Form, z: jax.Array, largest: Any = _LARGEST_EXPONENT) -> jax.Array:
    if form == "approx":
        return 0.5 + 0.5 * jnp.tanh(0.5 * z)
    if form == "direct":
        return pl.reciprocal(1.0 + _exp_minus(z), approx=False, full_range=False)
    d = _denominator(z, largest)
    guess = _reciprocal_guess(d)
    return guess * (2.0 - d * guess)


def _sqrt(form: Form, q: jax.Array) -> jax.Array:
    return q * jax.lax.rsqrt(q) if form == "direct" else jnp.exp2(jnp.log(q) * (0.5 * LOG2E))


def _denominator(z: jax.Array, largest: Any = _LARGEST_EXPONENT) -> jax.Array:
    """1 + e^-z, held finite: a Newton step has no value at infinity."""
    return 1.0 + _exp_minus(z, largest)


def _exp_minus(z: jax.Array, largest: Any = None) -> jax.Array:
    """e^-z, at most 2^largest. A TPU's exp is exp2 of a rounded product: this is that, without a negation before it.

    Interpreted, it is exp itself: the product and its rounded factor cost up to 1.22 |z| units of roundoff.
    """
    if mode() != "off":
        return jnp.exp(-z if largest is None else jnp.minimum(-z, largest * LN2))
    exponent = -LOG2E * z
    return jnp.exp2(exponent if largest is None else jnp.minimum(exponent, largest))


def _reciprocal_guess(d: jax.Array) -> jax.Array:
    """The unit's 1/d. The interpreters round theirs to bfloat16, which no chip does: there it is exact instead."""
    return pl.reciprocal(d, approx=True) if mode() == "off" else 1.0 / d


def _inverse_sqrt_guess(q: jax.Array) -> jax.Array:
    """1 / sqrt(q) by exp2 and log2: as good as these are, and two instructions instead of nine around rsqrt."""
    return jnp.exp2(jnp.log(q) * (-0.5 * LOG2E))
