"""What ``linear_scan`` is given by ``gated_scan``, with a gradient that stays finite as a approaches 1.

JAX's own gradient of sqrt(1 - a^2) is infinite at a = 1; multiplied with the zero it meets there it would be NaN.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from griffin_core_jax.scan import gates
from griffin_core_jax.scan.gates import Marks


@jax.custom_vjp
def scan_input(x: Array, gate_x: Array, gate_a: Array, recurrent_param: Array, marks: Marks) -> tuple[Array, Array]:
    """(u, log_a) [b t d] in float32: (gated x, -inf) at a reset, (0, 0) at padding."""
    return gates.scan_terms(x, gates.terms(x, gate_x, gate_a, recurrent_param), marks)


def _forward(x: Array, gate_x: Array, gate_a: Array, recurrent_param: Array, marks: Marks) -> tuple[Any, Any]:
    return scan_input(x, gate_x, gate_a, recurrent_param, marks), (x, gate_x, gate_a, recurrent_param, marks)


def _backward(saved: Any, cotangents: tuple[Array, Array]) -> tuple[Any, ...]:
    x, gate_x, gate_a, recurrent_param, marks = saved
    du, dlog_a = cotangents
    found = gates.terms(x, gate_x, gate_a, recurrent_param)
    gated = found.input_gate * x.astype(found.log_a.dtype)
    scaled = du * (
        found.multiplier if marks.reset is None else jnp.where(marks.reset[..., None], 1.0, found.multiplier)
    )
    a = jnp.exp(found.log_a)
    q = jnp.where(a == 0.0, 0.0, found.log_a * dlog_a - du * gated * a * a * gates.multiplier_slope(found.log_a))
    if marks.reset is not None:
        q = jnp.where(marks.reset[..., None], 0.0, q)
    if marks.pad is not None:
        q, scaled = (jnp.where(marks.pad[..., None], 0.0, value) for value in (q, scaled))
    dx, dgate_x = scaled * found.input_gate, scaled * gated * (1.0 - found.input_gate)
    if marks.pad is not None:  # what stands at padding may be NaN
        dgate_x = jnp.where(marks.pad[..., None], 0.0, dgate_x)
    dparam = gates.softplus_slope(recurrent_param.astype(q.dtype)) * q.sum(axis=(0, 1))
    pairs = ((dx, x), (dgate_x, gate_x), (q * (1.0 - found.recurrent_gate), gate_a), (dparam, recurrent_param))
    return *(d.astype(v.dtype) for d, v in pairs), None


scan_input.defvjp(_forward, _backward)
