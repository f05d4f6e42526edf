"""What surrounds the recurrence of one token, in one launch each. Without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin_core.config import NORM_EPS
from griffin_core_torch.triton.launch import launch

PRODUCT_WIDTH, TOKEN_WARPS = 1024, 4


def norm(x: Tensor, scale: Tensor) -> Tensor:
    """``rms_norm`` of x [b m], contiguous."""
    out, width = torch.empty_like(x), x.shape[1]
    given = {"x": x, "scale": scale, "out": out, "width": width, "eps": NORM_EPS}
    given |= {"WIDTH": 1 << (width - 1).bit_length()}
    launch("token_kernels", "norm_kernel", (len(x),), TOKEN_WARPS, given)
    return out


def gelu_product(gate: Tensor, up: Tensor) -> Tensor:
    """gelu_tanh(gate) * up for contiguous [b n], rounded once."""
    out, count = torch.empty_like(gate), gate.numel()
    given = {"gate": gate, "up": up, "out": out, "count": count, "WIDTH": PRODUCT_WIDTH}
    launch("token_kernels", "gelu_product_kernel", (-(-count // PRODUCT_WIDTH),), TOKEN_WARPS, given)
    return out
