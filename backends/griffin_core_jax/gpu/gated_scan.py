"""gated_scan on a GPU: the differentiable operation and its kernel record."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from griffin_core.checks import PAD
from griffin_core.protocol import Kernel, KernelCall
from griffin_core_jax.gpu import gated_cell, rows
from griffin_core_jax.gpu.call import Call
from griffin_core_jax.gpu.linear_scan import PALLAS_TRITON, plans_for, refusal
from griffin_core_jax.gpu.run import Plans, run_backward, run_forward
from griffin_core_jax.scan.gates import softplus_slope

OP = "gated_scan"


def gated_scan(
    x: jax.Array,
    gate_x: jax.Array,
    gate_a: jax.Array,
    recurrent_param: jax.Array,
    h0: jax.Array | None = None,
    positions: jax.Array | None = None,
    *,
    plans: Plans | None = None,
) -> tuple[jax.Array, jax.Array]:
    """h_t = a h_{t-1} + sqrt(1 - a^2) sigmoid(gate_x) x_t, log a = -8 softplus(p) sigmoid(gate_a) (Griffin, 2.4).

    Differentiable in all floating inputs. A gradient reads the inputs again and the float32 states before each tile
    of rows; neither y nor anything else [b t d] is kept for it.

    Args:
        x, gate_x, gate_a: [b t d], each float32, bfloat16 or float16.
        recurrent_param: [d] p.
        h0: float32 [b d] or None (zeros).
        positions: int [b t]: 0 starts a document, -1 is padding (the state stays, y is 0). None: token 0 starts a
            document when h0 is None, else none starts.
        plans: how the forward and the backward pass are cut; None chooses by the shape.

    Returns:
        (y, h): [b t d] in x's dtype; float32 [b d].
    """
    first = jnp.zeros(x.shape[::2], jnp.float32) if h0 is None else h0.astype(jnp.float32)
    if x.size == 0:
        return x, first
    chosen = plans_for(OP, x, gate_x, gate_a) if plans is None else plans
    y, h = _compiled(chosen, h0 is None, x, gate_x, gate_a, recurrent_param, first, positions)
    return y, h


def supports(call: KernelCall) -> str | None:
    """None where the kernel runs the call, else why not."""
    return refusal(call, ("x", "gate_x", "gate_a"))


def _call(fresh: bool, inputs: tuple[jax.Array, ...], param: jax.Array, positions: jax.Array | None) -> Call:
    batch, time, _ = inputs[0].shape
    if positions is not None:
        marks = rows.pack_marks(positions == 0, positions == PAD)
    else:
        start = jnp.broadcast_to(jnp.arange(time) == 0, (batch, time))
        marks = rows.pack_marks(start, None) if fresh else None
    return Call(gated_cell.CELL, inputs, gated_cell.decay_rate(param), marks)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(
    plans: Plans,
    fresh: bool,
    x: jax.Array,
    gate_x: jax.Array,
    gate_a: jax.Array,
    recurrent_param: jax.Array,
    h0: jax.Array,
    positions: jax.Array | None,
) -> tuple[jax.Array, ...]:
    return run_forward(_call(fresh, (x, gate_x, gate_a), recurrent_param, positions), h0, plans)


def _scan_forward(plans: Plans, fresh: bool, *inputs: Any) -> Any:
    *values, recurrent_param, h0, positions = inputs
    y, h, saved = run_forward(_call(fresh, tuple(values), recurrent_param, positions), h0, plans, save=True)
    return (y, h), (tuple(values), recurrent_param, saved, positions)


def _scan_backward(plans: Plans, fresh: bool, kept: Any, cotangents: tuple[jax.Array, jax.Array]) -> Any:
    values, recurrent_param, saved, positions = kept
    call = _call(fresh, values, recurrent_param, positions)
    gradients, dh0, parts = run_backward(call, saved, *cotangents, plans)
    dparam = softplus_slope(recurrent_param.astype(jnp.float32)) * parts
    return *gradients, dparam.astype(recurrent_param.dtype), dh0, None


_scan.defvjp(_scan_forward, _scan_backward)
_compiled = jax.jit(_scan, static_argnums=(0, 1))  # one trace for each shape, in calls outside jit too

KERNEL = Kernel(OP, PALLAS_TRITON, gated_scan, None, supports)
