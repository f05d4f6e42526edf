"""How far a right evaluation of each operation may be from the float64 reference, by running error analysis.

The formulas are the operation's own, written once in ``analysis`` arithmetic; their values are a second
derivation of the reference (a test compares them), their errors are the bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from griffin_core.checks import PAD
from griffin_core.config import RG_LRU_C
from griffin_core.reference.numeric import default_positions
from griffin_core.shapes import Array
from griffin_core.testing.analysis import (
    Approx,
    biased,
    decay,
    einsum,
    exact,
    multiplier,
    scan,
    select,
    sigmoid,
    softplus,
    where_zero,
)
from griffin_core.testing.inputs import Inputs
from griffin_core.testing.tolerance import dtype_name


@dataclass(frozen=True)
class Scanned:
    """A scan and what went into it: all [b t d], the masks [b t] and the first state [b d]."""

    a: Approx
    h: Approx
    previous: Approx
    last: Approx
    reset: Array
    pad: Array


@dataclass(frozen=True)
class Gated:
    """The terms of the gated recurrence, and its scan."""

    x: Approx
    input_gate: Approx
    recurrent_gate: Approx
    log_a: Approx
    multiplier: Approx
    softplus: Approx
    scanned: Scanned


@dataclass(frozen=True)
class Convolved:
    """The inputs that each tap saw [b t w d] (0 where it saw nothing), which it saw, and the output [b t d]."""

    windows: Approx
    seen: Array
    y: Approx
    pad: Array


def scanned(a: Approx, x: Approx, h0: Array | None, reset: Array, pad: Array) -> Scanned:
    """The scan of x with decay a; padding passes the state on."""
    first = exact(np.zeros((x.value.shape[0], x.value.shape[2])) if h0 is None else h0)
    h, previous = scan(a, x, first, reset)
    last = h[:, -1] if x.value.shape[1] else first
    return Scanned(a, h, previous, last, reset, pad)


def linear_scan(inputs: Inputs) -> Scanned:
    """a = exp(log_a) is exact here: the scan's own bound counts its rounding."""
    x = exact(inputs["x"])
    reset = np.zeros(x.value.shape[:2], bool) if inputs["reset"] is None else inputs["reset"]
    a = exact(np.exp(inputs["log_a"].astype(np.float64)))
    return scanned(a, x, inputs["h0"], reset, np.zeros_like(reset))


def gated_scan(
    x: Approx,
    gate_x: Approx,
    gate_a: Approx,
    param: Array,
    h0: Array | None,
    positions: Array,
    gate_error: float = 0.0,
    multiplier_error: float = 0.0,
) -> Gated:
    """Gates, decay, multiplier, scan (Griffin, section 2.4).

    ``gate_error`` (absolute) and ``multiplier_error`` (relative) are those that an approximate kernel states of itself.
    """
    reset, pad = positions == 0, positions == PAD
    gates = (sigmoid(gate) for gate in (gate_x, gate_a))
    input_gate, recurrent_gate = (Approx(gate.value, gate.error + gate_error) for gate in gates)
    soft = softplus(param)
    log_a = (soft.scaled(-RG_LRU_C)) * recurrent_gate
    m = multiplier(log_a)
    m = Approx(m.value, m.error + multiplier_error * m.value)
    gated = input_gate * x
    entering = where_zero(pad[..., None], select(reset[..., None], gated, m * gated))
    a = select(pad[..., None], exact(np.ones_like(x.value)), decay(log_a))
    return Gated(x, input_gate, recurrent_gate, log_a, m, soft, scanned(a, entering, h0, reset, pad))


def given_gates(inputs: Inputs, gate_error: float = 0.0, multiplier_error: float = 0.0) -> Gated:
    """``gated_scan`` of exact gate pre-activations."""
    positions = positions_of(inputs, inputs["h0"])
    x, gate_x, gate_a = (exact(inputs[name]) for name in ("x", "gate_x", "gate_a"))
    param, h0 = inputs["recurrent_param"], inputs["h0"]
    return gated_scan(x, gate_x, gate_a, param, h0, positions, gate_error, multiplier_error)


def gate(x: Approx, weight: Array, bias: Array, dtype: str) -> Approx:
    """A block-diagonal product and its bias; both may be stored in the compute dtype."""
    blocks = x.reshape(*x.value.shape[:2], *weight.shape[:2])
    product = einsum("bthk,hkj->bthj", blocks, exact(weight), terms=weight.shape[1]).stored(dtype)
    return biased(product, exact(bias), weight.shape[1]).stored(dtype).reshape(*x.value.shape)


def rg_lru(inputs: Inputs, x: Approx | None = None, fresh: bool | None = None) -> Gated:
    """Gates from x, then ``gated_scan``; ``x`` stands for the input when it comes from a convolution."""
    dtype = dtype_name(inputs["x"].dtype)
    x = exact(inputs["x"]) if x is None else x
    gate_x = gate(x, inputs["input_gate_weight"], inputs["input_gate_bias"], dtype)
    gate_a = gate(x, inputs["recurrent_gate_weight"], inputs["recurrent_gate_bias"], dtype)
    start = inputs["h0"] is None if fresh is None else fresh
    positions = default_positions(x.value, start) if inputs["positions"] is None else inputs["positions"]
    return gated_scan(x, gate_x, gate_a, inputs["recurrent_param"], inputs["h0"], positions)


def conv1d(x: Array, weight: Array, bias: Array, state: Array | None, positions: Array) -> Convolved:
    """y_t = bias + sum_j weight[j] x_{t-(w-1)+j}; tap j sees nothing of an earlier document."""
    width = weight.shape[-1]
    before = np.zeros((x.shape[0], width - 1, x.shape[2])) if state is None else state.astype(np.float64)
    line = np.concatenate([before, x.astype(np.float64)], axis=1)
    document = np.concatenate([np.zeros((x.shape[0], width - 1), int), np.cumsum(positions == 0, axis=1)], axis=1)
    time = x.shape[1]
    windows = np.stack([line[:, j : j + time] for j in range(width)], axis=2)
    seen = np.stack([document[:, j : j + time] == document[:, width - 1 :] for j in range(width)], axis=2)
    pad = positions == PAD
    seen &= ~pad[..., None]
    found = where_zero(~seen[..., None], exact(windows))
    y = biased(einsum("btjd,jd->btd", found, exact(weight[:, 0].T), terms=width), exact(bias), width)
    return Convolved(found, seen, where_zero(pad[..., None], y), pad)


def convolution(inputs: Inputs) -> Convolved:
    """``conv1d`` of the operation's own arguments."""
    positions = positions_of(inputs, inputs["state"])
    return conv1d(inputs["x"], inputs["weight"], inputs["bias"], inputs["state"], positions)


def recurrent_middle(inputs: Inputs) -> tuple[Convolved, Gated]:
    """The convolution, stored in the compute dtype, and the recurrence on it."""
    given = [inputs[name] for name in ("x", "conv_weight", "conv_bias", "conv_state")]
    carried = carried_state(inputs)
    x, weight, bias, state = given
    convolved = conv1d(x, weight, bias, state, positions_of(inputs, carried))
    return convolved, rg_lru(inputs, convolved.y.stored(dtype_name(inputs["x"].dtype)), carried is None)


def carried_state(inputs: Inputs) -> Array | None:
    """The state that says whether ``recurrent_middle`` continues a document: either of its two."""
    found: Array | None = inputs["conv_state"] if inputs["h0"] is None else inputs["h0"]
    return found


def positions_of(inputs: Inputs, carried: Array | None) -> Array:
    """The positions given, or what None means beside this state."""
    given: Array | None = inputs["positions"]
    return default_positions(inputs["x"], carried is None) if given is None else given


def states(terms: Scanned) -> dict[str, Array]:
    """Error bounds of (y, h); y is 0 at padding."""
    return {"y": where_zero(terms.pad[..., None], terms.h).error, "h": terms.last.error}


def middle_states(inputs: Inputs) -> dict[str, Array]:
    """Error bounds of ``recurrent_middle``'s (y, h, conv_state)."""
    convolved, gated = recurrent_middle(inputs)
    return {**states(gated.scanned), "conv_state": _copied(convolved)}


def conv_states(inputs: Inputs) -> dict[str, Array]:
    """Error bounds of ``conv1d``'s (y, state)."""
    convolved = convolution(inputs)
    return {"y": convolved.y.error, "state": _copied(convolved)}


def _copied(convolved: Convolved) -> Array:
    """The state is a copy of inputs: no error."""
    rows, _, width, channels = convolved.windows.value.shape
    return np.zeros((rows, width - 1, channels))
