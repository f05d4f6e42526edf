"""The kernel records of this backend, best first within an operation."""

from __future__ import annotations

from griffin_core.protocol import Kernel
from griffin_core_jax.conv import shifted
from griffin_core_jax.gpu.kernels import KERNELS as GPU
from griffin_core_jax.scan import gated_loop, loop
from griffin_core_jax.tpu.kernels import KERNELS as TPU

LOOP = "loop"
SHIFTED = "shifted"

KERNELS: tuple[Kernel, ...] = (
    *TPU,
    *GPU,
    Kernel("linear_scan", LOOP, loop.linear_scan, loop.linear_scan_vjp),
    Kernel("gated_scan", LOOP, gated_loop.gated_scan, gated_loop.gated_scan_vjp),
    Kernel("conv1d", SHIFTED, shifted.conv1d),
)
"""Those of accelerators refuse every other device; the loops run everywhere."""
