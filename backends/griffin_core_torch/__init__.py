"""The PyTorch backend: the functions of ``griffin_core.protocol`` on torch tensors."""

from __future__ import annotations

from typing import Any

from griffin_core.protocol import API_VERSION
from griffin_core_torch.arrays import from_numpy, to_numpy, vjp
from griffin_core_torch.attention.compose import local_attention
from griffin_core_torch.conv.compose import conv1d
from griffin_core_torch.decoding.loop import decode
from griffin_core_torch.devices import devices, on_device, platform
from griffin_core_torch.kernels import KERNELS
from griffin_core_torch.model import forward, hidden, logits
from griffin_core_torch.native import dump_params, dump_state, init_state, load_params, load_state, put, take
from griffin_core_torch.norms import rms_norm
from griffin_core_torch.scan.compose import gated_scan, linear_scan, recurrent_middle, rg_lru

__all__ = [
    "API_VERSION",
    "KERNELS",
    "Trainer",
    "conv1d",
    "decode",
    "devices",
    "dump_params",
    "dump_state",
    "forward",
    "from_numpy",
    "gated_scan",
    "hidden",
    "init_state",
    "linear_scan",
    "load_params",
    "load_state",
    "local_attention",
    "logits",
    "on_device",
    "platform",
    "put",
    "recurrent_middle",
    "rg_lru",
    "rms_norm",
    "take",
    "to_numpy",
    "vjp",
]


def __getattr__(name: str) -> Any:
    # The trainer brings optimisers and checkpointing along; generation does not need them.
    if name == "Trainer":
        from griffin_core_torch.trainer import Trainer

        return Trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
