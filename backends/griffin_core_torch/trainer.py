"""Training on PyTorch: one process, float32 parameters and moments, products in the compute dtype."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from griffin_core.checkpoints.trainer_state import TrainerState, load_trainer_state, save_trainer_state
from griffin_core.checks import PAD
from griffin_core.config import GriffinConfig
from griffin_core.errors import ConfigError, InputError
from griffin_core.layouts.params import EMBEDDING, LM_HEAD
from griffin_core.schedules import ADAMW, TrainerOptions, learning_rate
from griffin_core.shapes import Array
from griffin_core_torch.arrays import DTYPES, from_numpy
from griffin_core_torch.blocks import Call, LayerState
from griffin_core_torch.loss import cross_entropy_sum
from griffin_core_torch.model import FlatSource, Layer, run_hidden
from griffin_core_torch.native import dump_params, load_params
from griffin_core_torch.optimizer import AdamW, global_norm

BACKEND = "torch"


class Trainer:
    """Takes AdamW steps on packed batches; equal inputs on equal machines, threads and versions give equal bits.

    Args:
        config: the architecture.
        params: canonical arrays by name; copied, to float32.
        options: schedule, optimiser and precision.
        kernel: name of a kernel for the recurrent operations, or None.
        threads: threads of this process's operators; None leaves them as they are.
        device: a PyTorch device, or None for the CPU.

    Attributes:
        step_number: steps taken so far.

    Raises:
        ConfigError: ``options`` name an optimiser that this backend does not have.
    """

    def __init__(
        self,
        config: GriffinConfig,
        params: Mapping[str, Array],
        options: TrainerOptions,
        kernel: str | None = None,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        self.check(options, threads)
        if threads is not None:
            torch.set_num_threads(threads)
        self.config, self.options, self.step_number = config, options, 0
        self._kernel, self._device = kernel, device
        self._params = {n: p.requires_grad_() for n, p in load_params(config, params, "float32", device).items()}
        self._optimizer = AdamW(config, self._params, options)
        self._dtype = DTYPES[options.compute_dtype]

    @staticmethod
    def check(options: TrainerOptions, threads: int | None = None) -> None:
        """Refuse what this backend cannot train with; ``threads`` can be any number here.

        Raises:
            ConfigError: ``options`` name an optimiser that it does not have.
        """
        if options.optimizer != ADAMW:
            raise ConfigError(
                f"the torch backend has no optimizer {options.optimizer!r}; take {ADAMW!r}, or --backend jax"
            )

    def step(self, batch: Mapping[str, Array]) -> dict[str, float]:
        """One step on the mean loss over the batch's targets.

        A step whose loss or gradient norm is not finite changes nothing and is not counted: the caller sees it
        in the figures.

        Args:
            batch: int32 [b t] tokens, targets (-1: no loss) and positions (-1: padding, at the ends of rows).

        Returns:
            loss (nats per target), grad_norm (before clipping), learning_rate, tokens (padding not counted).

        Raises:
            InputError: an array is missing or misshapen, an id or a position is not legal, or nothing has a target.
        """
        rate = learning_rate(self.step_number, self.options)
        count = _count_targets(batch, self.config.vocab_size)
        if count == 0:
            raise InputError("no position of the batch has a target; expected at least one target that is not -1")
        loss = self._loss(batch, 1.0 / count)
        loss.backward()
        gradients = [p.grad for p in self._params.values() if p.grad is not None]
        figures = {
            "loss": loss.item(),
            "grad_norm": global_norm(gradients),
            "learning_rate": rate,
            "tokens": float((batch["positions"] != PAD).sum()),
        }
        if math.isfinite(figures["loss"]) and math.isfinite(figures["grad_norm"]):
            self.step_number += 1
            self._optimizer.step(self.step_number, rate, figures["grad_norm"])
        for p in self._params.values():
            p.grad = None
        return figures

    @torch.no_grad()
    def evaluate(self, batch: Mapping[str, Array]) -> tuple[float, int]:
        """(summed loss in nats, number of targets) of a batch; nothing is learned."""
        count = _count_targets(batch, self.config.vocab_size)
        return self._loss(batch, 1.0).item(), count

    def params(self) -> dict[str, Array]:
        """The parameters as canonical float32 arrays, copied."""
        return dump_params(self.config, self._params)

    def save(self, directory: str | Path) -> None:
        """Write everything needed to go on, whole or not at all.

        Raises:
            CheckpointError: the disk refuses.
        """
        parts = (self._params, self._optimizer.first, self._optimizer.second)
        weights, first, second = ({n: x.detach().cpu().numpy() for n, x in part.items()} for part in parts)
        state = TrainerState(self.step_number, weights, first, second)
        save_trainer_state(Path(directory), self.config, self.options, state, BACKEND)

    def restore(self, directory: str | Path) -> None:
        """Go on from a saved state.

        Raises:
            CheckpointError: it is damaged or unreadable; this trainer is unchanged.
            CheckpointMismatch: it belongs to another config, other options or another backend.
        """
        state = load_trainer_state(Path(directory), self.config, self.options, BACKEND)
        parts = (self._params, self._optimizer.first, self._optimizer.second)
        saved = (state.weights, state.first_moments, state.second_moments)
        with torch.no_grad():
            for part, arrays in zip(parts, saved, strict=True):
                for name, x in part.items():
                    x.copy_(from_numpy(arrays[name]))
        self.step_number = state.step

    def _loss(self, batch: Mapping[str, Array], scale: float) -> Tensor:
        tokens, targets, positions = (
            from_numpy(batch[name], device=self._device) for name in ("tokens", "targets", "positions")
        )
        wrap = _recomputed if self.options.checkpoint_activations and torch.is_grad_enabled() else None
        source = FlatSource(self._params, self._dtype)
        x, _ = run_hidden(self.config, source, tokens, positions, padding="right", kernel=self._kernel, wrap=wrap)
        head = self._params[EMBEDDING if self.config.tie_embeddings else LM_HEAD]
        return cross_entropy_sum(x.flatten(0, 1), head, targets.flatten().long(), self.config.logits_soft_cap, scale)


def _recomputed(layer: Layer) -> Layer:
    """The layer with only its input kept for the backward pass."""

    def run(x: Tensor, call: Call, state: LayerState | None) -> tuple[Tensor, dict[str, Tensor]]:
        found: Any = checkpoint(layer, x, call, state, use_reentrant=False, preserve_rng_state=False)
        return found  # type: ignore[no-any-return]

    return run


def _count_targets(batch: Mapping[str, Array], vocab_size: int) -> int:
    shapes = {name: np.shape(batch[name]) for name in ("tokens", "targets", "positions") if name in batch}
    if len(shapes) < 3 or len(set(shapes.values())) > 1 or len(shapes["tokens"]) != 2:
        raise InputError(f"a batch has arrays {shapes}; expected tokens, targets and positions of one shape [b t]")
    targets = np.asarray(batch["targets"])
    if targets.size and not -1 <= targets.min() <= targets.max() < vocab_size:
        raise InputError(f"targets are {targets.min()}..{targets.max()}; expected ids 0..{vocab_size - 1}, or -1")
    return int((targets >= 0).sum())
