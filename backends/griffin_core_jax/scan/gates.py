"""What enters the recurrence: gates, decay and multiplier (Griffin, section 2.4), and their exact gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from griffin_core.checks import PAD
from griffin_core.config import RG_LRU_C
from griffin_core_jax.products import block_diagonal
from griffin_core_jax.scan.loop import wide_dtype


class Marks(NamedTuple):
    """Where documents start and where padding stands, bool [b t]; None where there can be none."""

    reset: Array | None
    pad: Array | None


class Terms(NamedTuple):
    """Everything elementwise about one call of ``gated_scan``, float32 [b t d]; no marks are applied."""

    input_gate: Array
    recurrent_gate: Array
    log_a: Array
    multiplier: Array


def find_marks(positions: Array | None, batch: int, time: int, fresh: bool) -> Marks:
    """The marks of positions int [b t]; without positions token 0 starts a document when ``fresh``."""
    if positions is not None:
        return Marks(positions == 0, positions == PAD)
    if not fresh:
        return Marks(None, None)
    return Marks(jnp.broadcast_to(jnp.arange(time) == 0, (batch, time)), None)


def default_positions(x: Array, fresh: bool) -> Array:
    """int32 [b t] for ``positions=None``: a document starts at token 0 when ``fresh``, else none starts."""
    return jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32) + (0 if fresh else 1), x.shape[:2])


def terms(x: Array, gate_x: Array, gate_a: Array, recurrent_param: Array) -> Terms:
    """Gates, log a = -8 softplus(p) r and sqrt(1 - a^2), without cancellation as a approaches 1."""
    wide = wide_dtype(x)
    recurrent_gate = jax.nn.sigmoid(gate_a.astype(wide))
    log_a = -RG_LRU_C * jax.nn.softplus(recurrent_param.astype(wide)) * recurrent_gate
    return Terms(jax.nn.sigmoid(gate_x.astype(wide)), recurrent_gate, log_a, jnp.sqrt(-jnp.expm1(2.0 * log_a)))


def scan_terms(x: Array, found: Terms, marks: Marks) -> tuple[Array, Array]:
    """(u, log_a) for ``linear_scan``: (gated x, -inf) at a reset, (0, 0) at padding."""
    gated = found.input_gate * x.astype(found.log_a.dtype)
    u, log_a = found.multiplier * gated, found.log_a
    if marks.reset is not None:
        u = jnp.where(marks.reset[..., None], gated, u)
        log_a = jnp.where(marks.reset[..., None], -jnp.inf, log_a)
    if marks.pad is not None:
        u = jnp.where(marks.pad[..., None], 0.0, u)
        log_a = jnp.where(marks.pad[..., None], 0.0, log_a)
    return u, log_a


def multiplier_slope(log_a: Array) -> Array:
    """L / sqrt(1 - a^2), which tends to -sqrt(|L| / 2) as a approaches 1."""
    # |L| / m^2; the denominator is replaced where it is 0, so that nothing is divided by it
    ratio = jnp.where(log_a == 0.0, 0.5, log_a / jnp.where(log_a == 0.0, -1.0, jnp.expm1(2.0 * log_a)))
    return -jnp.sqrt(-log_a) * jnp.sqrt(ratio)


def decay_factor(log_a: Array, previous: Array, u: Array) -> Array:
    """L a h_{t-1} - u a^2 L / m: the gradient's factor of everything about the decay, finite everywhere."""
    a = jnp.exp(log_a)
    return jnp.where(a == 0.0, 0.0, log_a * a * previous - u * a * a * multiplier_slope(log_a))


def softplus_slope(param: Array) -> Array:
    """sigmoid(p) / softplus(p), which tends to 1 as p falls."""
    value = jax.nn.softplus(param)
    return jnp.where(value == 0.0, 1.0, jax.nn.sigmoid(param) / jnp.where(value == 0.0, 1.0, value))


def block_gates(x: Array, params: Mapping[str, Array]) -> tuple[Array, Array]:
    """Pre-activations of the input and the recurrence gate [b t d], in x's dtype: each block times its matrix."""
    return _pre_activation(x, params, "input_gate"), _pre_activation(x, params, "recurrent_gate")


def _pre_activation(x: Array, params: Mapping[str, Array], gate: str) -> Array:
    product, bias = block_diagonal(x, params[f"{gate}_weight"]), params[f"{gate}_bias"]
    return (product + bias.astype(product.dtype).reshape(-1)).astype(x.dtype)
