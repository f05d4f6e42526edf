"""How every kernel is started: arguments by name, and the options with which kernels are compiled and counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from griffin_core_torch.triton.loading import device, interpreted

OPTIONS = {"num_stages": 1, "enable_fp_fusion": False}
"""Triton's own default for fusion differs between its versions."""


def body() -> str:
    """Which body of ``device.special`` runs."""
    return interpreted() or ("hip" if torch.version.hip else "ptx")


def launch(module: str, name: str, grid: tuple[int, ...], warps: int, given: Mapping[str, Any]) -> None:
    """Run a kernel of ``device``; of ``given`` it takes the arguments that it names."""
    kernel = getattr(device(module), name)
    known = {**given, "BODY": body()}
    kernel[grid](**{key: known[key] for key in kernel.arg_names}, num_warps=warps, **OPTIONS)
