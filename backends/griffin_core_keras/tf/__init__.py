"""TensorFlow's engine of the Keras backend: the family's operations on TensorFlow tensors.

They run eagerly, in a ``tf.function`` whatever it knows of shapes, and in one that XLA compiles. Gradients are those of
``tf.GradientTape``, to first order.
"""

from griffin_core_keras.tf.activation import gelu_product
from griffin_core_keras.tf.arrays import dtype_name, from_numpy, is_concrete, to_numpy, vjp
from griffin_core_keras.tf.attention.compose import local_attention
from griffin_core_keras.tf.conv.compose import conv1d
from griffin_core_keras.tf.devices import devices, platform
from griffin_core_keras.tf.kernels import KERNELS
from griffin_core_keras.tf.loss import cross_entropy_sum
from griffin_core_keras.tf.norms import rms_norm
from griffin_core_keras.tf.products import dense, project
from griffin_core_keras.tf.scan.compose import gated_scan, linear_scan, recurrent_middle, rg_lru
from griffin_core_keras.tf.tracing import compiled

__all__ = [
    "KERNELS",
    "compiled",
    "conv1d",
    "cross_entropy_sum",
    "dense",
    "devices",
    "dtype_name",
    "from_numpy",
    "gated_scan",
    "gelu_product",
    "is_concrete",
    "linear_scan",
    "local_attention",
    "platform",
    "project",
    "recurrent_middle",
    "rg_lru",
    "rms_norm",
    "to_numpy",
    "vjp",
]
