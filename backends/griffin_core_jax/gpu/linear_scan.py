"""linear_scan on a GPU: the differentiable operation and its kernel record."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from griffin_core.protocol import Kernel, KernelCall
from griffin_core_jax.gpu import linear_cell, rows
from griffin_core_jax.gpu.call import Call
from griffin_core_jax.gpu.plan import plan
from griffin_core_jax.gpu.run import Plans, run_backward, run_forward
from griffin_core_jax.tpu.interpret import mode

PALLAS_TRITON = "pallas-triton"
OP = "linear_scan"
DEVICES = ("cuda", "rocm")
DTYPES = ("float32", "bfloat16", "float16")


def linear_scan(
    x: jax.Array,
    log_a: jax.Array,
    h0: jax.Array | None = None,
    reset: jax.Array | None = None,
    *,
    plans: Plans | None = None,
) -> tuple[jax.Array, jax.Array]:
    """h_t = exp(log_a_t) h_{t-1} + x_t, differentiable in x, log_a and h0.

    A gradient reads x and log_a again and the float32 states before each tile of rows; y is not kept for it.

    Args:
        x, log_a: [b t d], each float32, bfloat16 or float16; log_a in [-inf, 0].
        h0: float32 [b d] or None (zeros).
        reset: bool [b t] or None: rows that see nothing before them.
        plans: how the forward and the backward pass are cut; None chooses by the shape.

    Returns:
        (y, h): [b t d] in x's dtype; float32 [b d].
    """
    first = jnp.zeros(x.shape[::2], jnp.float32) if h0 is None else h0.astype(jnp.float32)
    if x.size == 0:
        return x, first
    y, h = _compiled(plans_for(OP, x, log_a) if plans is None else plans, x, log_a, first, reset)
    return y, h


def supports(call: KernelCall) -> str | None:
    """None where the kernel runs the call, else why not."""
    return refusal(call, ("x", "log_a"))


def refusal(call: KernelCall, names: tuple[str, ...]) -> str | None:
    """Why no kernel of this folder runs a call whose [b t d] arrays have these names; None where one does."""
    if mode() == "random":
        return "it is not run by the TPU simulator"
    if call.device not in DEVICES and (mode() == "off" or call.device != "cpu"):
        return f"it needs a GPU, and the arrays are on {call.device}"
    if call.packed:
        return "it runs one sequence per row"
    bad = [f"{name} is {call.dtypes[name]}" for name in names if call.dtypes.get(name) not in (None, *DTYPES)]
    return f"{bad[0]}; it takes {', '.join(DTYPES)}" if bad else None


def plans_for(operation: str, *arrays: jax.Array) -> Plans:
    """How both passes of a call on arrays [b t d] are cut."""
    widest = max(x.dtype.itemsize for x in arrays)
    shape = arrays[0].shape
    return plan(operation, "forward", shape, widest), plan(operation, "backward", shape, widest)


def _call(x: jax.Array, log_a: jax.Array, reset: jax.Array | None) -> Call:
    return Call(linear_cell.CELL, (x, log_a), None, rows.pack_marks(reset, None))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(
    plans: Plans, x: jax.Array, log_a: jax.Array, h0: jax.Array, reset: jax.Array | None
) -> tuple[jax.Array, ...]:
    return run_forward(_call(x, log_a, reset), h0, plans)


def _scan_forward(plans: Plans, x: jax.Array, log_a: jax.Array, h0: jax.Array, reset: jax.Array | None) -> Any:
    y, h, saved = run_forward(_call(x, log_a, reset), h0, plans, save=True)
    return (y, h), (x, log_a, saved, reset)


def _scan_backward(plans: Plans, kept: Any, cotangents: tuple[jax.Array, jax.Array]) -> Any:
    x, log_a, saved, reset = kept
    (dx, dlog_a), dh0, _ = run_backward(_call(x, log_a, reset), saved, *cotangents, plans)
    return dx, dlog_a, dh0, None


_scan.defvjp(_scan_forward, _scan_backward)
_compiled = jax.jit(_scan, static_argnums=0)  # one trace for each shape, in calls outside jit too

KERNEL = Kernel(OP, PALLAS_TRITON, linear_scan, None, supports)
