"""linear_scan on a TPU: the differentiable operation and its kernel record."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from griffin_core.protocol import Kernel, KernelCall
from griffin_core_jax.tpu import chips
from griffin_core_jax.tpu.interpret import mode
from griffin_core_jax.tpu.linear_scan_backward import linear_scan_backward
from griffin_core_jax.tpu.linear_scan_forward import linear_scan_forward
from griffin_core_jax.tpu.tiling import Tiling, tiling

PALLAS = "pallas"
OP = "linear_scan"
DTYPES = ("float32", "bfloat16")

Plan = tuple[Tiling, Tiling]


def linear_scan(
    x: jax.Array,
    log_a: jax.Array,
    h0: jax.Array | None = None,
    reset: jax.Array | None = None,
    *,
    tiles: Tiling | None = None,
) -> tuple[jax.Array, jax.Array]:
    """h_t = exp(log_a_t) h_{t-1} + x_t, differentiable in x, log_a and h0.

    A gradient reads x and log_a again and the float32 states before each time block; y is not kept for it.

    Args:
        x, log_a: [b t d], float32 or bfloat16; log_a in [-inf, 0].
        h0: float32 [b d] or None (zeros).
        reset: bool [b t] or None: rows that see nothing before them.
        tiles: blocks of both directions; None chooses them for the chip.

    Returns:
        (y, h): [b t d] in x's dtype; float32 [b d].
    """
    first = jnp.zeros(x.shape[::2], jnp.float32) if h0 is None else h0.astype(jnp.float32)
    if x.size == 0:
        return x, first
    y, h = _compiled(plan(x, log_a) if tiles is None else (tiles, tiles), x, log_a, first, reset)
    return y, h


def linear_scan_vjp(
    x: jax.Array,
    log_a: jax.Array,
    h0: jax.Array | None,
    reset: jax.Array | None,
    y: jax.Array,
    h: jax.Array,
    dy: jax.Array,
    dh: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array | None, None]:
    """The gradients from inputs and cotangents alone: one more forward pass than ``jax.vjp`` of ``linear_scan``."""
    del y, h
    first = jnp.zeros(x.shape[::2], jnp.float32) if h0 is None else h0.astype(jnp.float32)
    last = jnp.zeros_like(first) if dh is None else dh.astype(jnp.float32)
    blocks = plan(x, log_a)
    found = _scan_backward(blocks, _scan_forward(blocks, x, log_a, first, reset)[1], (dy.astype(x.dtype), last))
    return found[0], found[1], None if h0 is None else found[2].astype(h0.dtype), None


def supports(call: KernelCall) -> str | None:
    """None where the kernel runs the call, else why not."""
    if mode() == "off":
        if call.device != "tpu":
            return f"it needs a TPU, and the arrays are on {call.device}"
        kind = chips.device_kind()
        if kind is not None and chips.chip_of(kind) is None:
            return f"it is compiled for {', '.join(chips.CHIPS)}, not for {kind}"
    if call.packed:
        return "it runs one sequence per row"
    bad = [f"{name} is {call.dtypes[name]}" for name in ("x", "log_a") if call.dtypes.get(name) not in (None, *DTYPES)]
    return f"{bad[0]}; it takes {' and '.join(DTYPES)}" if bad else None


def plan(x: jax.Array, log_a: jax.Array) -> Plan:
    """Blocks of the forward and the backward pass on the chip that is traced for."""
    widest, chip = jnp.promote_types(x.dtype, log_a.dtype), chips.current()
    return tiling(OP, "forward", x.shape, widest, chip), tiling(OP, "backward", x.shape, widest, chip)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(
    blocks: Plan, x: jax.Array, log_a: jax.Array, h0: jax.Array, reset: jax.Array | None
) -> tuple[jax.Array, ...]:
    return linear_scan_forward(x, log_a, h0, reset, blocks[0])


def _scan_forward(blocks: Plan, x: jax.Array, log_a: jax.Array, h0: jax.Array, reset: jax.Array | None) -> Any:
    # The states kept are those before the backward pass's blocks, so its blocks are taken.
    y, h, starts = linear_scan_forward(x, log_a, h0, reset, blocks[1], with_starts=True)
    return (y, h), (x, log_a, starts, reset)


def _scan_backward(blocks: Plan, kept: Any, cotangents: tuple[jax.Array, jax.Array]) -> Any:
    x, log_a, starts, reset = kept
    dx, dlog_a, dh0 = linear_scan_backward(x, log_a, starts, reset, *cotangents, blocks[1])
    return dx, dlog_a, dh0, None


_scan.defvjp(_scan_forward, _scan_backward)
_compiled = jax.jit(_scan, static_argnums=0)  # one trace for each shape, in calls outside jit too

KERNEL = Kernel(OP, PALLAS, linear_scan, None, supports)
