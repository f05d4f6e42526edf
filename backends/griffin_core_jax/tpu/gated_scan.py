"""gated_scan on a TPU: the differentiable operation and its kernel records."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from griffin_core.checks import PAD
from griffin_core.protocol import Kernel, KernelCall
from griffin_core_jax.tpu import chips, gate_math
from griffin_core_jax.tpu import linear_scan as plain
from griffin_core_jax.tpu.gate_math import Form
from griffin_core_jax.tpu.gated_backward import gated_scan_backward
from griffin_core_jax.tpu.gated_forward import SLOTS, gated_scan_forward
from griffin_core_jax.tpu.tiling import GROUP, Tiling, fixed, tiling

OP = "gated_scan"
Both = tuple[Tiling, Tiling]
"""Blocks of the forward and of the backward pass."""
APPROX = "pallas-approx"
GATE_ERROR, MULTIPLIER_ERROR = 2.0**-20, 2.0**-17
"""What the approximate form promises: sigmoids to 2^-20 absolutely, sqrt(1 - a^2) to 2^-17 of its value."""


def gated_scan(
    x: jax.Array,
    gate_x: jax.Array,
    gate_a: jax.Array,
    recurrent_param: jax.Array,
    h0: jax.Array | None = None,
    positions: jax.Array | None = None,
    *,
    form: Form | None = None,
    tiles: Tiling | None = None,
) -> tuple[jax.Array, jax.Array]:
    """h_t = a h_{t-1} + sqrt(1 - a^2) sigmoid(gate_x) x_t, log a = -8 softplus(p) sigmoid(gate_a) (Griffin, 2.4).

    Differentiable in all floating inputs. A gradient reads the inputs again and the float32 states before each time
    block; neither y nor anything else [b t d] is kept for it.

    Args:
        x, gate_x, gate_a: [b t d], float32 or bfloat16.
        recurrent_param: [d] p.
        h0: float32 [b d] or None (zeros).
        positions: int [b t]: 0 starts a document, -1 is padding (the state stays, y is 0). None: token 0 starts a
            document when h0 is None, else none starts.
        form: how gates are computed; None is the full-precision form of the chip.
        tiles: blocks of both directions, of an even number of groups; None chooses them for the chip.

    Returns:
        (y, h): [b t d] in x's dtype; float32 [b d].

    Raises:
        ConfigError: unknown form.
    """
    chosen = form or gate_math.form_for(chips.current())
    gate_math.check_form(chosen)
    first = jnp.zeros(x.shape[::2], jnp.float32) if h0 is None else h0.astype(jnp.float32)
    if not x.size:
        return jnp.zeros_like(x), first
    both = plan(x, gate_x, gate_a) if tiles is None else (tiles, tiles)
    shared = (_vary_like(x, value) for value in (recurrent_param, first, positions))
    y, h = _compiled(chosen, both, h0 is None, x, gate_x, gate_a, *shared)
    return y, h


def approximate(
    x: jax.Array,
    gate_x: jax.Array,
    gate_a: jax.Array,
    recurrent_param: jax.Array,
    h0: jax.Array | None = None,
    positions: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """``gated_scan`` with approximate gates, for those who ask by name: see ``GATE_ERROR`` and ``MULTIPLIER_ERROR``."""
    return gated_scan(x, gate_x, gate_a, recurrent_param, h0, positions, form="approx")


def supports(call: KernelCall) -> str | None:
    """None where the kernel runs the call, else why not."""
    refused = plain.supports(call)
    names = ("gate_x", "gate_a")
    bad = [f"{n} is {call.dtypes[n]}" for n in names if call.dtypes.get(n) not in (None, *plain.DTYPES)]
    return f"{bad[0]}; it takes {' and '.join(plain.DTYPES)}" if bad and refused is None else refused


def plan(x: jax.Array, *gates: jax.Array) -> Both:
    """(forward, backward) blocks of a call on the chip it is traced for; groups go in pairs."""
    dtype = functools.reduce(jnp.promote_types, (gate.dtype for gate in gates), x.dtype)
    chip = chips.current()

    def choose(direction: str) -> Tiling:
        found = tiling(OP, direction, x.shape, dtype, chip)
        if found.groups % SLOTS == 0:
            return found
        return fixed(OP, direction, x.shape, dtype, chip, found.block_time + GROUP, found.block_width)

    return choose("forward"), choose("backward")


def _vary_like(x: jax.Array, value: jax.Array | None) -> jax.Array | None:
    """``value``, varying over x's mesh axes: under ``shard_map`` its gradient is then summed over them."""
    axes = getattr(jax.typeof(x), "manual_axis_type", None)
    if value is None or axes is None:
        return value
    missing = tuple(sorted(axes.varying - jax.typeof(value).manual_axis_type.varying))
    return jax.lax.pcast(value, missing, to="varying") if missing else value


def find_marks(
    positions: jax.Array | None, fresh: bool, shape: tuple[int, ...], tiles: Tiling
) -> tuple[jax.Array, jax.Array] | None:
    """(reset, skip) bool [b t], or None when there is neither and the blocks end where time does."""
    if positions is not None:
        return positions == 0, positions == PAD
    if not fresh and shape[1] % tiles.block_time == 0:
        return None
    start = jnp.broadcast_to(fresh & (jnp.arange(shape[1]) == 0), shape[:2])
    return start, jnp.zeros(shape[:2], bool)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scan(form: Form, both: Both, fresh: bool, *inputs: Any) -> tuple[jax.Array, ...]:
    return _forward(form, both[0], fresh, inputs)


def _scan_forward(form: Form, both: Both, fresh: bool, *inputs: Any) -> Any:
    # by the backward pass's blocks: the states it needs are those before them
    y, h, starts = _forward(form, both[1], fresh, inputs, with_starts=True)
    x, gate_x, gate_a, recurrent_param, _, positions = inputs
    return (y, h), (x, gate_x, gate_a, recurrent_param, starts, positions)


def _forward(
    form: Form, tiles: Tiling, fresh: bool, inputs: tuple[Any, ...], with_starts: bool = False
) -> tuple[jax.Array, ...]:
    x, gate_x, gate_a, recurrent_param, h0, positions = inputs
    marked = find_marks(positions, fresh, x.shape, tiles)
    terms = gate_math.channel_terms(recurrent_param)
    return gated_scan_forward(x, gate_x, gate_a, terms, h0, marked, tiles, form, with_starts)


def _scan_backward(
    form: Form, both: Both, fresh: bool, kept: Any, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array | None, ...]:
    x, gate_x, gate_a, recurrent_param, starts, positions = kept
    marked = find_marks(positions, fresh, x.shape, both[1])
    terms = gate_math.channel_terms(recurrent_param)
    arguments = (x, gate_x, gate_a, terms, starts, marked, *cotangents)
    dx, dgate_x, dgate_a, total, dh0 = gated_scan_backward(*arguments, both[1], form)
    dparam = gate_math.LN2 * gate_math.softplus_slope(recurrent_param) * total
    return dx, dgate_x, dgate_a, dparam.astype(recurrent_param.dtype), dh0, None


_scan.defvjp(_scan_forward, _scan_backward)
_compiled = jax.jit(_scan, static_argnums=(0, 1, 2))

KERNELS = (
    Kernel(OP, plain.PALLAS, gated_scan, None, supports),
    Kernel(OP, APPROX, approximate, None, supports, approximate=True),
)
"""Best first. ``auto`` takes the first that supports a call, and what supports one of them supports both."""
