"""AdamW on the canonical parameters: decay by the parameter table, clipping, moments in and out.

PyTorch's fused kernel makes one pass over parameters, gradients and moments, and scales the gradients on the way.
It is called directly: the class around it (``torch.optim.AdamW``) loads the compiler at its first use, which takes
longer than a small model's first hundred steps, and has no room for the scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import param_table
from griffin_core.schedules import TrainerOptions


class AdamW:
    """Decoupled weight decay, bias-corrected moments; epsilon is added to sqrt(v_hat).

    Args:
        config: its parameter table says which parameters decay.
        params: float32 leaves by name; written by ``step``.
        options: betas, epsilon, weight decay and the clipping norm.

    Attributes:
        first, second: the moments by name, float32.
    """

    def __init__(self, config: GriffinConfig, params: Mapping[str, Tensor], options: TrainerOptions) -> None:
        self.options = options
        self.first = {name: torch.zeros_like(p, requires_grad=False) for name, p in params.items()}
        self.second = {name: torch.zeros_like(p, requires_grad=False) for name, p in params.items()}
        decayed = {row.name for row in param_table(config) if row.decay}
        self._params = params
        self._groups = (
            ([name for name in params if name in decayed], options.weight_decay),
            ([name for name in params if name not in decayed], 0.0),
        )

    @torch.no_grad()
    def step(self, number: int, rate: float, norm: float) -> None:
        """Update the parameters from their gradients, which may be overwritten.

        Args:
            number: of this step; the first is 1.
            rate: learning rate.
            norm: the gradients' global norm; above ``options.clip_norm`` they are scaled down to that.
        """
        limit = self.options.clip_norm
        device = next(iter(self._params.values())).device
        count = torch.tensor(float(number), dtype=torch.float32, device=device)
        divisor = torch.tensor(norm / limit, dtype=torch.float32, device=device) if limit and norm > limit else None
        for names, decay in self._groups:
            names = [name for name in names if self._params[name].grad is not None]
            if not names:
                continue
            torch._fused_adamw_(
                [self._params[name] for name in names],
                [self._params[name].grad.contiguous() for name in names],  # the kernel reads them flat
                [self.first[name] for name in names],
                [self.second[name] for name in names],
                [],
                [count] * len(names),
                lr=rate,
                beta1=self.options.beta1,
                beta2=self.options.beta2,
                weight_decay=decay,
                eps=self.options.epsilon,
                amsgrad=False,
                maximize=False,
                grad_scale=divisor,
                found_inf=None,
            )


def global_norm(gradients: Iterable[Tensor]) -> float:
    """Square root of the sum of all squared entries."""
    return math.sqrt(sum(torch.linalg.vector_norm(gradient).item() ** 2 for gradient in gradients))
