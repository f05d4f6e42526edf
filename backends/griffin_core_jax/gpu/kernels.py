"""The records of the Pallas kernels for GPUs."""

from __future__ import annotations

from griffin_core.protocol import Kernel
from griffin_core_jax.gpu import gated_scan, linear_scan

KERNELS: tuple[Kernel, ...] = (linear_scan.KERNEL, gated_scan.KERNEL)
