"""The kernel records of this backend, best first within an operation."""

from __future__ import annotations

from griffin_core.protocol import Kernel
from griffin_core_torch.conv.eager import conv1d_forward
from griffin_core_torch.conv.eager_vjp import conv1d_vjp
from griffin_core_torch.scan.gated_eager import gated_scan_forward
from griffin_core_torch.scan.gated_eager_vjp import gated_scan_vjp
from griffin_core_torch.scan.linear_eager import linear_scan_forward
from griffin_core_torch.scan.linear_eager_vjp import linear_scan_vjp
from griffin_core_torch.triton.records import KERNELS as TRITON_KERNELS

EAGER = "eager"


EAGER_KERNELS = (
    Kernel("linear_scan", EAGER, linear_scan_forward, linear_scan_vjp),
    Kernel("gated_scan", EAGER, gated_scan_forward, gated_scan_vjp),
    Kernel("conv1d", EAGER, conv1d_forward, conv1d_vjp),
)

KERNELS: tuple[Kernel, ...] = (*TRITON_KERNELS, *EAGER_KERNELS)
"""Those of GPUs refuse every other device; the eager ones run everywhere."""
