"""What surrounds the recurrence of one token, in one launch each. Without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin_core.config import NORM_EPS
from griffin_core_torch.triton.call import body
from griffin_core_torch.triton.loading import device

PRODUCT_WIDTH = 1024
OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
"""As the kernels are compiled and counted; Triton's own default for fusion differs between its versions."""


def norm(x: Tensor, scale: Tensor) -> Tensor:
    """``rms_norm`` of x [b m], contiguous."""
    out, width = torch.empty_like(x), x.shape[1]
    kernel = device("token_kernels").norm_kernel
    chosen = {"WIDTH": 1 << (width - 1).bit_length(), "BODY": body(), **OPTIONS}
    kernel[(len(x),)](x, scale, out, width, NORM_EPS, **chosen)
    return out


def gelu_product(gate: Tensor, up: Tensor) -> Tensor:
    """gelu_tanh(gate) * up for contiguous [b n], rounded once."""
    out, count = torch.empty_like(gate), gate.numel()
    kernel = device("token_kernels").gelu_product_kernel
    kernel[(-(-count // PRODUCT_WIDTH),)](gate, up, out, count, WIDTH=PRODUCT_WIDTH, BODY=body(), **OPTIONS)
    return out
