"""The operations of the protocol on NumPy arrays: choose a kernel, or compose from inner operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from griffin_core import reference
from griffin_core.arguments import check_arguments
from griffin_core.config import NORM_EPS
from griffin_core.numpy_backend.arrays import NAME
from griffin_core.protocol import CONV_OP, KernelCall
from griffin_core.reference.numeric import default_positions
from griffin_core.reference.packing import by_sequence
from griffin_core.reference.rg_lru import block_diagonal, scan_terms
from griffin_core.registry import packed_kernel, part_kernel, select_kernel
from griffin_core.shapes import Array

TIMED = ("x", "log_a", "reset", "gate_x", "gate_a", "positions")
PER_ROW = ("h0", "state", "conv_state")


def linear_scan(
    x: Array,
    log_a: Array,
    h0: Array | None = None,
    reset: Array | None = None,
    starts: Array | None = None,
    kernel: str | None = None,
) -> tuple[Array, Array]:
    """h_t = exp(log_a_t) h_{t-1} + x_t; a reset selects h_t = x_t.

    Args:
        x, log_a: [b t d]; log_a in [-inf, 0].
        h0: float32 [b d] or None (zeros).
        reset: bool [b t] or None.
        starts: int32 [n+1], n sequences packed in one row; then h0 and h are [n d].
        kernel: a kernel's name; None asks GRIFFIN_KERNEL, else "auto".

    Returns:
        (y, h): states [b t d] in x's dtype, and the last one, float32 [b d].

    Raises:
        KernelNotSupported: the named kernel does not exist or cannot run this call.
    """
    found: tuple[Array, Array] = _run("linear_scan", {"x": x, "log_a": log_a, "h0": h0, "reset": reset}, starts, kernel)
    return found


def gated_scan(
    x: Array,
    gate_x: Array,
    gate_a: Array,
    recurrent_param: Array,
    h0: Array | None = None,
    positions: Array | None = None,
    starts: Array | None = None,
    kernel: str | None = None,
) -> tuple[Array, Array]:
    """``linear_scan`` of sqrt(1 - a^2) sigmoid(gate_x) x with log a = -8 softplus(p) sigmoid(gate_a).

    Args:
        gate_x, gate_a: [b t d] pre-activations of the input and the recurrence gate.
        recurrent_param: [d].
        positions: int32 [b t]: 0 starts a document, -1 is padding; None: token 0 starts one if h0 is None.

    The other arguments, the result and the errors are those of ``linear_scan``.
    """
    arguments = {"x": x, "gate_x": gate_x, "gate_a": gate_a, "recurrent_param": recurrent_param}
    found: tuple[Array, Array] = _run("gated_scan", {**arguments, "h0": h0, "positions": positions}, starts, kernel)
    return found


def rg_lru(
    x: Array,
    params: Mapping[str, Array],
    h0: Array | None = None,
    positions: Array | None = None,
    starts: Array | None = None,
    kernel: str | None = None,
) -> tuple[Array, Array]:
    """``gated_scan`` whose gates are block-diagonal products of x.

    Args:
        params: recurrent_param [d]; input_gate_weight, recurrent_gate_weight [h k k]; input_gate_bias,
            recurrent_gate_bias [h k].

    The other arguments, the result and the errors are those of ``gated_scan``.
    """
    arguments = {"x": x, "params": params, "h0": h0, "positions": positions}
    found: tuple[Array, Array] = _run("rg_lru", arguments, starts, kernel)
    return found


def recurrent_middle(
    x: Array,
    params: Mapping[str, Array],
    h0: Array | None = None,
    conv_state: Array | None = None,
    positions: Array | None = None,
    starts: Array | None = None,
    kernel: str | None = None,
) -> tuple[Array, Array, Array]:
    """``conv1d``, then ``rg_lru``: (y, h, conv_state).

    Args:
        params: those of ``rg_lru``, and conv_weight [d 1 w], conv_bias [d].
        conv_state: [b w-1 d] or None.

    The other arguments and the errors are those of ``rg_lru``.
    """
    arguments = {"x": x, "params": params, "h0": h0, "conv_state": conv_state, "positions": positions}
    found: tuple[Array, Array, Array] = _run("recurrent_middle", arguments, starts, kernel)
    return found


def conv1d(
    x: Array,
    weight: Array,
    bias: Array,
    state: Array | None = None,
    positions: Array | None = None,
    starts: Array | None = None,
    kernel: str | None = None,
) -> tuple[Array, Array]:
    """The depthwise causal convolution: (y [b t d], state [b w-1 d]), in x's dtype.

    Args:
        weight: [d 1 w], tap w-1 on the current token.
        bias: [d].
        state: [b w-1 d] the last inputs, oldest first, or None (zeros).

    The other arguments and the errors are those of ``gated_scan``.
    """
    arguments = {"x": x, "weight": weight, "bias": bias, "state": state, "positions": positions}
    found: tuple[Array, Array] = _run(CONV_OP, arguments, starts, kernel)
    return found


def rms_norm(x: Array, scale: Array, eps: float = NORM_EPS) -> Array:
    """x / sqrt(mean(x^2) + eps) * (1 + scale) over the last axis, in x's dtype."""
    return reference.rms_norm(x, scale, eps).astype(x.dtype)


def local_attention(
    q: Array,
    k: Array,
    v: Array,
    positions: Array | None = None,
    cache: Mapping[str, Array] | None = None,
    window: int | None = None,
) -> tuple[Array, dict[str, Array] | None]:
    """Local multi-query attention with rotary positions; see ``reference.local_attention``.

    Returns:
        (y, cache): [b t n e] in q's dtype, and the cache after the last token in its own dtypes, or None.
    """
    y, new = reference.local_attention(q, k, v, positions, cache, window)
    if new is None or cache is None:
        return y.astype(q.dtype), None
    return y.astype(q.dtype), {name: value.astype(cache[name].dtype) for name, value in new.items()}


def describe(arguments: Mapping[str, Any], packed: bool = False) -> KernelCall:
    """The plain facts of a call, by argument name; a dict of parameters counts by its own names."""
    arrays = {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}
    arrays |= arguments.get("params", {})
    shapes = {name: value.shape for name, value in arrays.items()}
    return KernelCall(shapes, {name: value.dtype.name for name, value in arrays.items()}, "cpu", packed)


def _run(op: str, arguments: dict[str, Any], starts: Array | None, kernel: str | None) -> Any:
    check_arguments(op, arguments, starts)
    if starts is not None:
        return _run_packed(op, arguments, starts, kernel)
    record = select_kernel(NAME, op, describe(arguments), kernel)
    return _COMPOSED[op](**arguments, kernel=kernel) if record is None else record.forward(*arguments.values())


def _run_packed(op: str, arguments: dict[str, Any], starts: Array, kernel: str | None) -> Any:
    """A kernel that takes packed rows gets the row; otherwise each sequence is a call of its own."""
    record = packed_kernel(NAME, op, describe(arguments, packed=True), kernel)
    if record is not None:
        return record.forward(*arguments.values(), starts)
    timed, rows = ([name for name in arguments if name in group] for group in (TIMED, PER_ROW))

    def one(*pieces: Array | None) -> Any:
        return _run(op, {**arguments, **dict(zip([*timed, *rows], pieces, strict=True))}, None, kernel)

    return by_sequence(one, starts, tuple(arguments[n] for n in timed), tuple(arguments[n] for n in rows))


def _compose_gated_scan(
    x: Array, gate_x: Array, gate_a: Array, recurrent_param: Array, h0: Any, positions: Any, kernel: str | None
) -> tuple[Array, Array]:
    positions = default_positions(x, fresh=h0 is None) if positions is None else positions
    scan_input, log_a = (
        value.astype(np.float32) for value in scan_terms(x, gate_x, gate_a, recurrent_param, positions)
    )
    y, h = linear_scan(scan_input, log_a, h0, positions == 0, kernel=kernel)
    return np.where((positions == -1)[..., None], 0.0, y).astype(x.dtype), h


def _compose_rg_lru(x: Array, params: Mapping[str, Array], h0: Any, positions: Any, kernel: str | None) -> Any:
    gates = [
        block_diagonal(x, params[f"{gate}_weight"], params[f"{gate}_bias"]).astype(np.float32)
        for gate in ("input_gate", "recurrent_gate")
    ]
    return gated_scan(x, gates[0], gates[1], params["recurrent_param"], h0, positions, kernel=kernel)


def _compose_middle(
    x: Array, params: Mapping[str, Array], h0: Any, conv_state: Any, positions: Any, kernel: str | None
) -> tuple[Array, Array, Array]:
    if positions is None:
        positions = default_positions(x, fresh=h0 is None and conv_state is None)
    conv_kernel = part_kernel(NAME, CONV_OP, kernel)
    z, conv_state = conv1d(x, params["conv_weight"], params["conv_bias"], conv_state, positions, kernel=conv_kernel)
    y, h = rg_lru(z, params, h0, positions, kernel=kernel)
    return y, h, conv_state


_COMPOSED: dict[str, Callable[..., Any]] = {
    "gated_scan": _compose_gated_scan,
    "rg_lru": _compose_rg_lru,
    "recurrent_middle": _compose_middle,
}
