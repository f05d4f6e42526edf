"""conv1d as users call it."""

from __future__ import annotations

import tensorflow as tf

from griffin_core_keras.tf.dispatch import by_sequence, choose, choose_packed, operation, run_kernel


@operation
def conv1d(
    x: tf.Tensor,
    weight: tf.Tensor,
    bias: tf.Tensor,
    state: tf.Tensor | None = None,
    positions: tf.Tensor | None = None,
    starts: tf.Tensor | None = None,
    kernel: str | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """y_t = bias + sum_j weight[j] x_{t-(w-1)+j}, over the tokens of t's own document, summed in float32.

    Args:
        x: [b t d] of any floating dtype.
        weight: [d 1 w], tap w-1 on the current token.
        bias: [d].
        state: [b w-1 d], the inputs before the first, oldest first; None is zeros.
        positions: int32 [b t]: 0 starts a document (nothing before it is seen), -1 is padding at the end of
            a row (skipped, output 0). None starts no document inside.
        starts: int32 [n+1], n sequences packed in one row (b = 1); states are then [n w-1 d].
        kernel: name of a kernel, or None.

    Returns:
        (y, state): [b t d] and the last w-1 inputs [b w-1 d], in x's dtype.

    Raises:
        InputError: shapes do not fit.
        KernelNotSupported: the named kernel cannot run this call.
    """
    op = "conv1d"
    arrays = {"x": x, "weight": weight, "bias": bias, "state": state, "positions": positions}
    if starts is None:
        found: tuple[tf.Tensor, tf.Tensor] = run_kernel(choose(op, kernel, arrays), x, weight, bias, state, positions)
        return found
    packed = choose_packed(op, kernel, arrays)
    if packed is not None:
        return run_kernel(packed, x, weight, bias, state, positions, starts)
    return by_sequence(
        lambda x, at, state: conv1d(x, weight, bias, state, at, None, kernel), starts, (x, positions), (state,)
    )
