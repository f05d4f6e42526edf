"""AdamW on the canonical parameters: decay by the parameter table, clipping, moments in and out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import param_table
from griffin_core.schedules import TrainerOptions
from griffin_core.shapes import Array

FIRST, SECOND = "exp_avg", "exp_avg_sq"
"""PyTorch's names of the two moments."""


def make_adamw(config: GriffinConfig, params: Mapping[str, Tensor], options: TrainerOptions) -> torch.optim.AdamW:
    """AdamW over two groups: parameters that the table decays, and the others. Moments start at zero.

    The fused form makes one pass over parameters, gradients and moments.
    """
    decayed = {row.name for row in param_table(config) if row.decay}
    groups = [
        {"params": [p for n, p in params.items() if n in decayed], "weight_decay": options.weight_decay},
        {"params": [p for n, p in params.items() if n not in decayed], "weight_decay": 0.0},
    ]
    first = next(iter(params.values()))
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=options.learning_rate,
        betas=(options.beta1, options.beta2),
        eps=options.epsilon,
        fused=first.device.type in ("cpu", "cuda"),
    )
    zeros = {name: torch.zeros_like(p) for name, p in params.items()}
    set_moments(optimizer, params, 0, zeros, {name: zero.clone() for name, zero in zeros.items()})
    return optimizer


def set_rate(optimizer: torch.optim.AdamW, rate: float) -> None:
    """Use this learning rate for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def set_moments(
    optimizer: torch.optim.AdamW,
    params: Mapping[str, Tensor],
    step: int,
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
) -> None:
    """Put the optimiser where it stood after ``step`` steps; the tensors become its own."""
    for name, p in params.items():
        count = torch.tensor(float(step), dtype=torch.float32, device=p.device)
        optimizer.state[p] = {"step": count, FIRST: first[name].detach(), SECOND: second[name].detach()}


def moments(optimizer: torch.optim.AdamW, params: Mapping[str, Tensor], which: str) -> dict[str, Array]:
    """The first or second moments by name; on the CPU these are views, valid until the next step."""
    return {name: optimizer.state[p][which].cpu().numpy() for name, p in params.items()}


def global_norm(gradients: Iterable[Tensor]) -> float:
    """Square root of the sum of all squared entries."""
    return math.sqrt(sum(torch.linalg.vector_norm(gradient).item() ** 2 for gradient in gradients))


def clip(gradients: Iterable[Tensor], norm: float, limit: float) -> None:
    """Scale the gradients, in place, to the global norm ``limit`` when ``norm`` exceeds it; 0 is no limit."""
    if limit and norm > limit:
        for gradient in gradients:
            gradient.mul_(limit / norm)
