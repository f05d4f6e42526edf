"""``linear_scan`` in float32, in place: whole rows of [b d] stream over time through three ufuncs.

Bound by memory: exp, multiply and add touch one row while it stands in the cache, and the state is the
previous row of the output.
"""

from __future__ import annotations

import numpy as np

from griffin_core.protocol import KernelCall, one_sequence_per_row
from griffin_core.reference.numeric import quiet
from griffin_core.shapes import Array


def supports(call: KernelCall) -> str | None:
    """None, or why the loop cannot run the call."""
    wide = "float64" in call.dtypes.values()
    return "it computes in float32; use kernel 'reference'" if wide else one_sequence_per_row(call)


@quiet
def linear_scan(x: Array, log_a: Array, h0: Array | None = None, reset: Array | None = None) -> tuple[Array, Array]:
    """y [b t d] in x's dtype and h float32 [b d]; arguments as in ``reference.linear_scan``."""
    inputs, log_decay = np.asarray(x, np.float32), np.asarray(log_a, np.float32)
    y = np.empty(x.shape, np.float32)
    h = np.zeros((len(x), x.shape[2]), np.float32) if h0 is None else np.array(h0, np.float32)
    carried = np.empty_like(h)
    resets = _rows_with(reset, x.shape[1])
    for t in range(x.shape[1]):
        np.exp(log_decay[:, t], out=carried)
        np.multiply(carried, h, out=carried)
        if reset is not None and resets[t]:
            carried[reset[:, t]] = 0.0
        h = np.add(carried, inputs[:, t], out=y[:, t])
    return y.astype(x.dtype, copy=False), np.array(h)


@quiet
def linear_scan_vjp(
    x: Array,
    log_a: Array,
    h0: Array | None,
    reset: Array | None,
    y: Array,
    h: Array,
    dy: Array,
    dh: Array | None,
) -> tuple[Array, Array, Array | None, None]:
    """The mirrored loop: gradients of x, log_a and h0 in their dtypes. The states are computed again in float32."""
    states, _ = linear_scan(np.asarray(x, np.float32), log_a, h0, reset)
    log_decay, cotangent = np.asarray(log_a, np.float32), np.asarray(dy, np.float32)
    first = np.zeros((len(x), x.shape[2]), np.float32) if h0 is None else np.asarray(h0, np.float32)
    carry = np.zeros_like(first) if dh is None else np.array(dh, np.float32)
    dx, dlog_a = np.empty(x.shape, np.float32), np.zeros(x.shape, np.float32)
    resets = _rows_with(reset, x.shape[1])
    for t in reversed(range(x.shape[1])):
        np.add(cotangent[:, t], carry, out=dx[:, t])
        np.exp(log_decay[:, t], out=carry)
        np.multiply(carry, dx[:, t], out=carry)
        if reset is not None and resets[t]:
            carry[reset[:, t]] = 0.0
        np.multiply(carry, states[:, t - 1] if t else first, out=dlog_a[:, t], where=carry != 0)
    dh0 = None if h0 is None else carry
    return dx.astype(x.dtype, copy=False), dlog_a.astype(log_a.dtype, copy=False), dh0, None


def _rows_with(reset: Array | None, time: int) -> list[bool]:
    """Whether any row resets, for each time."""
    return [False] * time if reset is None else [bool(row.any()) for row in reset.T]
