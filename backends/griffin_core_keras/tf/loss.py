"""Output projection, soft cap and cross-entropy in pieces: all logits never exist at once.

Pieces are cut along time. The backward pass makes the logits of each piece again, turns them into the loss's gradient
and multiplies that into the gradients of the hidden states and of the projection: TensorFlow does not say in the
forward pass whether a gradient will be asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from griffin_core_keras.tf.arrays import Size, sizes, wide_dtype
from griffin_core_keras.tf.gradients import own_gradient
from griffin_core_keras.tf.loops import collect
from griffin_core_keras.tf.products import full_float32

PIECE_BYTES = 1 << 26
"""Float32 logits held at a time; large enough for the products to run at full rate."""


class _Pieces(NamedTuple):
    """``count`` pieces of ``length`` positions, the last of them with ``extra`` that do not exist."""

    count: Size
    length: Size
    extra: Size


def cross_entropy_sum(
    x: tf.Tensor,
    weight: tf.Tensor,
    targets: tf.Tensor,
    soft_cap: float | None,
    scale: tf.Tensor | float = 1.0,
    *,
    piece_bytes: int = PIECE_BYTES,
) -> tf.Tensor:
    """``scale * sum -log softmax(cap(x @ weight.T))[target]`` over the positions with ``target >= 0``.

    Args:
        x: [b t m] hidden states after the final norm, in the compute dtype.
        weight: [v m] output projection, float32; it is rounded to ``x``'s dtype first.
        targets: integers [b t]; negative ones carry no loss, whatever ``x`` holds there.
        soft_cap: c of ``c * tanh(logits / c)``, or None.
        scale: factor on the sum, one over the number of targets for a mean.
        piece_bytes: float32 logits held at a time.

    Returns:
        A float32 scalar, differentiable in ``x``, ``weight`` and ``scale``. Products accumulate in float32.
    """
    full_float32()
    x, weight, targets = tf.convert_to_tensor(x), tf.convert_to_tensor(weight), tf.cast(targets, tf.int32)
    wide, pieces = wide_dtype(x), _cuts(x, weight, piece_bytes)

    @own_gradient
    def total(x: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, tf.Tensor]]]:
        def pull(cotangent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return _gradients(pieces, soft_cap, x, weight, targets, cotangent)

        return _sum(pieces, soft_cap, x, weight, targets), pull

    # a number is made a tensor of this dtype at once: by way of float32 it would be rounded
    return total(x, weight) * (tf.cast(scale, wide) if tf.is_tensor(scale) else tf.constant(scale, wide))


def _cuts(x: tf.Tensor, weight: tf.Tensor, piece_bytes: int) -> _Pieces:
    batch, time, _ = sizes(x)
    if isinstance(batch, int) and isinstance(time, int):
        most = max(1, piece_bytes // (4 * max(1, batch) * weight.shape[0]))
        count = max(1, -(-time // most))
        length = max(1, -(-time // count))  # pieces of equal length waste the least padding
        return _Pieces(count, length, count * length - time)
    most = tf.maximum(1, piece_bytes // (4 * weight.shape[0]) // tf.maximum(1, batch))
    count = tf.maximum(1, -(-time // most))
    length = tf.maximum(1, -(-time // count))
    return _Pieces(count, length, count * length - time)


def _sum(pieces: _Pieces, soft_cap: float | None, x: tf.Tensor, weight: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    x, targets, matrix = _opened(pieces, x, weight, targets)

    def step(index: tf.Tensor, carry: tuple[()]) -> tuple[tuple[()], list[tf.Tensor]]:
        here, target = _cut(pieces, x, index), _cut(pieces, targets, index)
        return carry, [_piece(soft_cap, matrix, _real(here, target), target)[0]]

    like = tf.zeros((sizes(x)[0], pieces.length), matrix.dtype)
    _, (losses,) = collect(pieces.count, step, (), [like])
    return tf.reduce_sum(losses)


def _gradients(
    pieces: _Pieces,
    soft_cap: float | None,
    x: tf.Tensor,
    weight: tf.Tensor,
    targets: tf.Tensor,
    cotangent: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    line, targets, matrix = _opened(pieces, x, weight, targets)

    def step(index: tf.Tensor, dmatrix: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        target = _cut(pieces, targets, index)
        here = _real(_cut(pieces, line, index), target)
        dlogits = _piece(soft_cap, matrix, here, target)[1] * cotangent
        back = tf.einsum("brv,vm->brm", dlogits, matrix)
        return dmatrix + tf.einsum("brv,brm->vm", dlogits, tf.cast(here, matrix.dtype)), [tf.cast(back, x.dtype)]

    batch, time, width = sizes(x)
    like = tf.zeros((batch, pieces.length, width), x.dtype)
    dmatrix, (dx,) = collect(pieces.count, step, tf.zeros_like(matrix), [like])
    dx = tf.reshape(tf.transpose(dx, (1, 0, 2, 3)), (batch, pieces.count * pieces.length, width))
    return dx[:, :time], tf.cast(dmatrix, weight.dtype)


def _piece(soft_cap: float | None, matrix: tf.Tensor, x: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(losses [b r], gradient in the uncapped logits [b r v]) of one piece."""
    real = (target >= 0)[..., None]
    scores = tf.einsum("brm,vm->brv", tf.cast(x, matrix.dtype), matrix)
    bent = scores if soft_cap is None else tf.tanh(scores / soft_cap)  # in units of the cap
    unit = 1.0 if soft_cap is None else soft_cap
    hit = tf.range(sizes(scores)[2]) == target[..., None]
    picked = tf.reduce_sum(tf.where(hit, bent, 0.0), axis=-1, keepdims=True)
    peak = tf.reduce_max(bent, axis=-1, keepdims=True)
    weights = tf.exp((bent - peak) * unit)
    partition = tf.reduce_sum(weights, axis=-1, keepdims=True)
    loss = tf.where(real, tf.math.log(partition) + (peak - picked) * unit, 0.0)[..., 0]
    dlogits = weights / partition - tf.cast(hit, scores.dtype)
    dlogits = dlogits if soft_cap is None else dlogits * (1.0 - bent * bent)
    return loss, tf.where(real, dlogits, 0.0)


def _opened(pieces: _Pieces, x: tf.Tensor, weight: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """(x, targets) with whole pieces, and the rounded projection in the dtype of the sums."""
    matrix = tf.cast(tf.cast(weight, x.dtype), wide_dtype(x))
    if not isinstance(pieces.extra, int) or pieces.extra:
        x = tf.pad(x, ((0, 0), (0, pieces.extra), (0, 0)))
        targets = tf.pad(targets, ((0, 0), (0, pieces.extra)), constant_values=-1)
    return x, targets, matrix


def _cut(pieces: _Pieces, x: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    batch, _, *rest = sizes(x)
    return tf.slice(x, [0, index * pieces.length, *[0] * len(rest)], [batch, pieces.length, *rest])


def _real(x: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """x [b r m] with 0 where nothing is asked, whatever stands there."""
    return tf.where((target >= 0)[..., None], x, tf.zeros((), x.dtype))
