"""The kernel records of this engine, best first within an operation."""

from __future__ import annotations

from griffin_core.protocol import Kernel
from griffin_core_keras.tf.conv import shifted
from griffin_core_keras.tf.scan import compiled_loop

LOOP = "loop"
SHIFTED = "shifted"

KERNELS: tuple[Kernel, ...] = (
    Kernel("linear_scan", LOOP, compiled_loop.linear_scan, compiled_loop.linear_scan_vjp),
    Kernel("gated_scan", LOOP, compiled_loop.gated_scan, compiled_loop.gated_scan_vjp),
    Kernel("conv1d", SHIFTED, shifted.conv1d),
)
"""They run on every device, and inside programs that XLA compiles."""
