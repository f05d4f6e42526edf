"""The nested recurrent operations as users call them: a kernel where one is chosen, else the operation inside."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from griffin_core import registry
from griffin_core_keras.tf.arrays import sizes
from griffin_core_keras.tf.conv.compose import conv1d
from griffin_core_keras.tf.dispatch import BACKEND, by_sequence, choose, choose_packed, operation, run_kernel
from griffin_core_keras.tf.scan.entering import scan_input
from griffin_core_keras.tf.scan.gates import block_gates, cleared, find_marks

Params = Mapping[str, tf.Tensor]


@operation
def linear_scan(
    x: tf.Tensor,
    log_a: tf.Tensor,
    h0: tf.Tensor | None = None,
    reset: tf.Tensor | None = None,
    starts: tf.Tensor | None = None,
    kernel: str | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """h_t = exp(log_a_t) h_{t-1} + x_t, and h_t = x_t at a reset (by selection: NaN before it stays behind).

    Args:
        x, log_a: [b t d] of any floating dtype; log_a in [-inf, 0], where -inf is a decay of exactly 0.
        h0: float32 [b d], the state before the first token; None is zeros.
        reset: bool [b t]; None is nowhere.
        starts: int32 [n+1], n sequences packed in one row (b = 1); h0 and h are then [n d].
        kernel: name of a kernel, or None for GRIFFIN_KERNEL or the first that can run the call.

    Returns:
        (y, h): [b t d] in x's dtype, and float32 [b d]. The recurrence runs in float32.

    Raises:
        InputError: shapes do not fit.
        KernelNotSupported: the named kernel cannot run this call.
    """
    arrays = {"x": x, "log_a": log_a, "h0": h0, "reset": reset}
    if starts is None:
        return run_kernel(choose("linear_scan", kernel, arrays), x, log_a, h0, reset)
    packed = choose_packed("linear_scan", kernel, arrays)
    if packed is not None:
        return run_kernel(packed, x, log_a, h0, reset, starts)
    return by_sequence(
        lambda x, log_a, reset, h0: linear_scan(x, log_a, h0, reset, None, kernel), starts, (x, log_a, reset), (h0,)
    )


@operation
def gated_scan(
    x: tf.Tensor,
    gate_x: tf.Tensor,
    gate_a: tf.Tensor,
    recurrent_param: tf.Tensor,
    h0: tf.Tensor | None = None,
    positions: tf.Tensor | None = None,
    starts: tf.Tensor | None = None,
    kernel: str | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """h_t = a h_{t-1} + sqrt(1 - a^2) sigmoid(gate_x) x_t, log a = -8 softplus(p) sigmoid(gate_a) (Griffin, 2.4).

    Args:
        x, gate_x, gate_a: [b t d]; gates are pre-activations.
        recurrent_param: [d] p.
        h0: float32 [b d]; None is zeros.
        positions: int32 [b t]: 0 starts a document (h_t = sigmoid(gate_x) x_t), -1 is padding at the end of
            a row (the state stays, the output is 0). None: token 0 starts a document when h0 is None.
        starts: int32 [n+1], n sequences packed in one row; h0 and h are then [n d].
        kernel: name of a kernel of this operation or of ``linear_scan``.

    Returns:
        (y, h): [b t d] in x's dtype, and float32 [b d].

    Raises:
        InputError: shapes do not fit.
        KernelNotSupported: the named kernel cannot run this call.
    """
    gates = {"gate_x": gate_x, "gate_a": gate_a}
    arrays = {"x": x, **gates, "recurrent_param": recurrent_param, "h0": h0, "positions": positions}
    inputs = (x, gate_x, gate_a, recurrent_param, h0, positions)
    if starts is not None:
        packed = choose_packed("gated_scan", kernel, arrays)
        if packed is not None:
            return run_kernel(packed, *inputs, starts)
        return by_sequence(
            lambda x, gx, ga, at, h0: gated_scan(x, gx, ga, recurrent_param, h0, at, None, kernel),
            starts,
            (x, gate_x, gate_a, positions),
            (h0,),
        )
    chosen = choose("gated_scan", kernel, arrays)
    if chosen is not None:
        return run_kernel(chosen, *inputs)
    marks = find_marks(positions, x, h0 is None)
    u, log_a = scan_input(x, gate_x, gate_a, recurrent_param, marks)
    y, h = linear_scan(u, log_a, h0, marks.reset, None, kernel)
    return tf.cast(cleared(marks.pad, y), x.dtype), h


@operation
def rg_lru(
    x: tf.Tensor,
    params: Params,
    h0: tf.Tensor | None = None,
    positions: tf.Tensor | None = None,
    starts: tf.Tensor | None = None,
    kernel: str | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """``gated_scan`` with both gates computed from x by block-diagonal products.

    Args:
        x: [b t d].
        params: recurrent_param [d]; input_gate_weight, recurrent_gate_weight [h k k]; input_gate_bias,
            recurrent_gate_bias [h k].
        h0, positions, starts, kernel: as in ``gated_scan``; the kernel may be one of ``rg_lru``.

    Returns:
        (y, h): [b t d] in x's dtype, and float32 [b d].
    """
    arrays = {"x": x, **params, "h0": h0, "positions": positions}
    packed = None if starts is None else choose_packed("rg_lru", kernel, arrays)
    if packed is not None:
        return run_kernel(packed, x, params, h0, positions, starts)
    chosen = choose("rg_lru", kernel, arrays)
    if chosen is None:
        gate_x, gate_a = block_gates(x, params)
        return gated_scan(x, gate_x, gate_a, params["recurrent_param"], h0, positions, starts, kernel)
    if starts is None:
        return run_kernel(chosen, x, params, h0, positions)
    return by_sequence(lambda x, at, h0: rg_lru(x, params, h0, at, None, kernel), starts, (x, positions), (h0,))


@operation
def recurrent_middle(
    x: tf.Tensor,
    params: Params,
    h0: tf.Tensor | None = None,
    conv_state: tf.Tensor | None = None,
    positions: tf.Tensor | None = None,
    starts: tf.Tensor | None = None,
    kernel: str | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """``conv1d`` and then ``rg_lru``: what stands between the linears of a recurrent block.

    Args:
        x: [b t d].
        params: those of ``rg_lru``, and conv_weight [d 1 w], conv_bias [d].
        h0, conv_state: float32 [b d] and [b w-1 d]. With ``positions=None`` token 0 starts a document when
            both are None; when one is given the other is zeros.
        positions, starts, kernel: as in ``gated_scan``; the kernel may be one of ``recurrent_middle``.

    Returns:
        (y, h, conv_state): [b t d] in x's dtype, float32 [b d], [b w-1 d] in x's dtype.
    """
    op = "recurrent_middle"
    arrays = {"x": x, "h0": h0, "conv_state": conv_state, "positions": positions, **params}
    packed = None if starts is None else choose_packed(op, kernel, arrays)
    if packed is not None:
        return run_kernel(packed, x, params, h0, conv_state, positions, starts)
    chosen = choose(op, kernel, arrays)
    if chosen is not None and starts is None:
        return run_kernel(chosen, x, params, h0, conv_state, positions)
    if starts is not None and (chosen is not None or positions is None):
        return by_sequence(
            lambda x, at, h0, conv: recurrent_middle(x, params, h0, conv, at, None, kernel),
            starts,
            (x, positions),
            (h0, conv_state),
        )
    batch, _, width = sizes(x)
    if h0 is None and conv_state is not None and positions is None:
        h0 = tf.zeros((batch, width), tf.float32)
    if conv_state is None and h0 is not None and positions is None:
        conv_state = tf.zeros((batch, params["conv_weight"].shape[-1] - 1, width), x.dtype)
    part = registry.part_kernel(BACKEND, "conv1d", kernel)
    z, conv_state = conv1d(x, params["conv_weight"], params["conv_bias"], conv_state, positions, starts, part)
    y, h = rg_lru(z, params, h0, positions, starts, kernel)
    return y, h, conv_state
