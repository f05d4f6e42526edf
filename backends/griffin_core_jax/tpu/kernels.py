"""The records of the Pallas TPU kernels."""

from __future__ import annotations

from griffin_core.protocol import Kernel
from griffin_core_jax.tpu import gated_scan, linear_scan

KERNELS: tuple[Kernel, ...] = (linear_scan.KERNEL, *gated_scan.KERNELS)
