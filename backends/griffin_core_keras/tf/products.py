"""Matrix products: float32 accumulation always, and full float32 products where the compute dtype is float32.

TensorFlow has no product of narrow operands with a wide result on a processor, so operands are widened, which is
exact. What the backward pass keeps are the operands as they were given.
"""

from __future__ import annotations

import functools
import logging

import tensorflow as tf

from griffin_core_keras.tf.arrays import sizes, wide_dtype
from griffin_core_keras.tf.gradients import own_gradient

log = logging.getLogger("griffin_core")


def einsum(spec: str, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """The sum in float32 (float64 for float64); ``right`` is rounded to ``left``'s dtype first.

    Gradients have the dtypes of what they belong to.

    Args:
        spec: "rows,columns->result", every letter at most once in each, and in two of the three or more.
    """
    full_float32()
    operands, result = spec.split("->")
    rows, columns = operands.split(",")

    @own_gradient
    def product(left: tf.Tensor, right: tf.Tensor) -> tuple[tf.Tensor, object]:
        def pull(cotangent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            kept = _widened(left), _widened(tf.cast(right, left.dtype))
            dleft = tf.einsum(f"{result},{columns}->{rows}", cotangent, kept[1])
            dright = tf.einsum(f"{rows},{result}->{columns}", kept[0], cotangent)
            return tf.cast(dleft, left.dtype), tf.cast(dright, right.dtype)

        return tf.einsum(spec, _widened(left), _widened(tf.cast(right, left.dtype))), pull

    return product(left, right)


def dense(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    """x [... i] times kernel [i o], plus bias [o], in x's dtype with float32 accumulation."""
    x, kernel = tf.convert_to_tensor(x), tf.convert_to_tensor(kernel)
    *lead, inputs = sizes(x)
    y = einsum("ri,io->ro", tf.reshape(x, (-1, inputs)), kernel)
    y = tf.cast(y if bias is None else y + tf.cast(bias, y.dtype), x.dtype)
    return tf.reshape(y, (*lead, kernel.shape[1]))


def project(x: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
    """Logits: x [b t m] times head [v m], which is rounded to x's dtype. Float32 [b t v]."""
    return einsum("btm,vm->btv", tf.convert_to_tensor(x), tf.convert_to_tensor(head))


def block_diagonal(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Each of h blocks of x [b t h*k] times its own matrix, from the right: weight [h k k]. Float32 [b t h*k]."""
    batch, time, width = sizes(x)
    blocks, block, _ = weight.shape
    found = einsum("bthk,hkj->bthj", tf.reshape(x, (batch, time, blocks, block)), weight)
    return tf.reshape(found, (batch, time, width))


@functools.cache
def full_float32() -> None:
    """Switch TensorFloat-32 off, once and for the process: it would cut float32 operands to 11 bits on a GPU.

    TensorFlow has one switch for all products. Where speed matters more, compute in bfloat16.
    """
    config = tf.config.experimental
    if tf.config.list_physical_devices("GPU") and config.tensor_float_32_execution_enabled():
        log.info("TensorFlow: TensorFloat-32 is switched off, so that float32 products are float32")
        config.enable_tensor_float_32_execution(False)


def _widened(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, wide_dtype(x))
