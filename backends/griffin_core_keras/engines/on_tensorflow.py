"""Keras on TensorFlow: the operations of ``griffin_core_keras.tf``, which has no backend of its own beside Keras."""

from __future__ import annotations

import tensorflow as tf

from griffin_core.errors import ConfigError
from griffin_core_keras.tf import (
    KERNELS,
    compiled,
    conv1d,
    cross_entropy_sum,
    dense,
    devices,
    dtype_name,
    from_numpy,
    gated_scan,
    gelu_product,
    is_concrete,
    linear_scan,
    local_attention,
    platform,
    project,
    recurrent_middle,
    rg_lru,
    rms_norm,
    to_numpy,
    vjp,
)

__all__ = [
    "COMPILES_SHAPES",
    "KERNELS",
    "KERNELS_OF",
    "compiled",
    "conv1d",
    "dense",
    "devices",
    "dtype_name",
    "from_numpy",
    "gated_scan",
    "gelu_product",
    "is_concrete",
    "linear_scan",
    "local_attention",
    "mean_cross_entropy",
    "platform",
    "project",
    "recurrent_middle",
    "release_programs",
    "rg_lru",
    "rms_norm",
    "set_threads",
    "to_numpy",
    "vjp",
    "wait",
]

KERNELS_OF = "keras"
"""The backend whose kernels these are: there is no other."""
COMPILES_SHAPES = True
"""A program is traced for every shape."""


def release_programs() -> bool:
    """Nothing is dropped: TensorFlow keeps its graphs, and the tests met no limit of theirs."""
    return False


def mean_cross_entropy(x: tf.Tensor, head: tf.Tensor, targets: tf.Tensor, soft_cap: float | None) -> tf.Tensor:
    """-log softmax of the capped logits at the targets, averaged over those that are not negative; 0 without any."""
    count = tf.maximum(tf.reduce_sum(tf.cast(targets >= 0, tf.float32)), 1.0)
    return cross_entropy_sum(x, head, targets, soft_cap) / count


def wait(x: tf.Tensor) -> None:
    """Until the tensor has its values."""
    x.numpy()


def set_threads(count: int) -> None:
    """Threads of an operation; TensorFlow can be told before it computes anything.

    Raises:
        ConfigError: it has computed already, with another number.
    """
    if tf.config.threading.get_intra_op_parallelism_threads() == count:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise ConfigError(
            f"threads={count} comes too late: TensorFlow has computed already; ask for threads in a new process"
        ) from error
