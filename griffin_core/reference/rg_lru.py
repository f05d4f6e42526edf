"""The real-gated linear recurrent unit (Griffin, section 2.4) and the middle of a recurrent block."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from griffin_core.checks import PAD
from griffin_core.config import RG_LRU_C
from griffin_core.reference.conv1d import conv1d
from griffin_core.reference.numeric import Tap, default_positions, no_tap, quiet, sigmoid, softplus, wide
from griffin_core.reference.packing import by_sequence, restarted_positions
from griffin_core.reference.scan import decay_scan
from griffin_core.shapes import Array

Params = Mapping[str, Array]


def block_diagonal(
    x: Float[Array, "b t d"], weight: Float[Array, "h k k"], bias: Float[Array, "h k"]
) -> Float[Array, "b t d"]:
    """Each of h blocks of x times its own [k k] matrix (from the right), plus bias."""
    x, weight = wide(x), wide(weight)
    blocks = x.reshape(*x.shape[:2], *weight.shape[:2])
    product: Array = np.einsum("bthk,hkj->bthj", blocks, weight) + wide(bias)
    return product.reshape(x.shape)


def log_decay(recurrent_gate: Float[Array, "b t d"], recurrent_param: Float[Array, " d"]) -> Float[Array, "b t d"]:
    """log a = -8 softplus(recurrent_param) r, with r the open gate. (The paper's Lambda is minus the parameter.)"""
    return -RG_LRU_C * softplus(wide(recurrent_param)) * recurrent_gate


def input_multiplier(log_a: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """sqrt(1 - a^2), without cancellation as a approaches 1."""
    return np.sqrt(-np.expm1(2.0 * log_a))


@quiet
def gated_scan(
    x: Float[Array, "b t d"],
    gate_x: Float[Array, "b t d"],
    gate_a: Float[Array, "b t d"],
    recurrent_param: Float[Array, " d"],
    h0: Float[Array, "n d"] | None = None,
    positions: Int[Array, "b t"] | None = None,
    starts: Int[Array, " n_1"] | None = None,
    tap: Tap = no_tap,
) -> tuple[Float[Array, "b t d"], Float[Array, "n d"]]:
    """h_t = a h_{t-1} + sqrt(1 - a^2) sigmoid(gate_x) x_t with log a = -8 softplus(p) sigmoid(gate_a).

    Args:
        x: [b t d] inputs.
        gate_x, gate_a: [b t d] pre-activations of the input gate and of the recurrence gate.
        recurrent_param: [d] p, the decay parameter.
        h0: [b d] state before the first token.
        positions: int [b t]: 0 starts a document (h_t = sigmoid(gate_x) x_t), -1 is padding (the state
            stays, the output is 0). None: with ``h0=None`` token 0 starts a document, else none starts.
        starts: int [n+1], n sequences packed in one row; ``h0`` is then [n d].
        tap: hook on input_gate, recurrent_gate, log_a, a, scan_input, h.

    Returns:
        (y, h): float64 states after each token [b t d], and after the last [b d].
    """
    if starts is not None:
        pieces = by_sequence(
            lambda x, gate_x, gate_a, positions, h0: gated_scan(x, gate_x, gate_a, recurrent_param, h0, positions),
            starts,
            (x, gate_x, gate_a, positions),
            (h0,),
        )
        return pieces[0], pieces[1]
    positions = default_positions(x, fresh=h0 is None) if positions is None else positions
    pad = (positions == PAD)[..., None]
    scan_input, log_a = scan_terms(x, gate_x, gate_a, recurrent_param, positions, tap)
    a = np.where(pad, 1.0, tap("a", np.exp(log_a)))
    y, h = decay_scan(scan_input, a, h0, positions == 0)
    return tap("h", np.where(pad, 0.0, y)), h


def scan_terms(
    x: Array, gate_x: Array, gate_a: Array, recurrent_param: Array, positions: Array, tap: Tap = no_tap
) -> tuple[Array, Array]:
    """What ``linear_scan`` is given: (input, log_a) [b t d]; (gated x, -inf) at a reset, (0, 0) at padding."""
    reset, pad = (positions == 0)[..., None], (positions == PAD)[..., None]
    recurrent_gate = tap("recurrent_gate", sigmoid(wide(gate_a)))
    log_a = tap("log_a", log_decay(recurrent_gate, recurrent_param))
    gated = tap("input_gate", sigmoid(wide(gate_x))) * wide(x)
    scan_input = np.where(pad, 0.0, np.where(reset, gated, input_multiplier(log_a) * gated))
    return tap("scan_input", scan_input), np.where(pad, 0.0, np.where(reset, -np.inf, log_a))


def rg_lru(
    x: Float[Array, "b t d"],
    params: Params,
    h0: Float[Array, "n d"] | None = None,
    positions: Int[Array, "b t"] | None = None,
    starts: Int[Array, " n_1"] | None = None,
    tap: Tap = no_tap,
) -> tuple[Float[Array, "b t d"], Float[Array, "n d"]]:
    """``gated_scan`` with both gates computed from x by block-diagonal products.

    Args:
        params: recurrent_param [d]; input_gate_weight, recurrent_gate_weight [h k k]; input_gate_bias,
            recurrent_gate_bias [h k]. Other keys are ignored.

    The other arguments and the result are those of ``gated_scan``; further taps: gate_x, gate_a.
    """
    gate_x = tap("gate_x", block_diagonal(x, params["input_gate_weight"], params["input_gate_bias"]))
    gate_a = tap("gate_a", block_diagonal(x, params["recurrent_gate_weight"], params["recurrent_gate_bias"]))
    return gated_scan(x, gate_x, gate_a, params["recurrent_param"], h0, positions, starts, tap)


def recurrent_middle(
    x: Float[Array, "b t d"],
    params: Params,
    h0: Float[Array, "n d"] | None = None,
    conv_state: Float[Array, "n w_1 d"] | None = None,
    positions: Int[Array, "b t"] | None = None,
    starts: Int[Array, " n_1"] | None = None,
    tap: Tap = no_tap,
) -> tuple[Float[Array, "b t d"], Float[Array, "n d"], Float[Array, "n w_1 d"]]:
    """``conv1d`` and then ``rg_lru``: what stands between the linears of a recurrent block.

    Args:
        params: those of ``rg_lru``, and conv_weight [d 1 w], conv_bias [d].
        h0, conv_state: [b d] and [b w-1 d]. With ``positions=None`` token 0 starts a document when both
            are None; when one is given the other is zeros.

    Returns:
        (y, h, conv_state), float64; the other arguments are those of ``gated_scan``; further tap: conv.
    """
    if positions is None:
        positions = default_positions(x, fresh=h0 is None and conv_state is None)
        if starts is not None:
            positions = restarted_positions(positions, starts)
    z, conv_state = conv1d(x, params["conv_weight"], params["conv_bias"], conv_state, positions, starts)
    y, h = rg_lru(tap("conv", z), params, h0, positions, starts, tap)
    return y, h, conv_state
