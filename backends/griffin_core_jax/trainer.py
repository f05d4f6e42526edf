"""Training on JAX: one process, float32 parameters and moments, products in the compute dtype, one program a step."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array as JaxArray

from griffin_core.checks import PAD, check_batch
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.schedules import ADAMW, TrainerOptions, learning_rate
from griffin_core.shapes import Array
from griffin_core_jax import remat as remats
from griffin_core_jax.checkpoints import load_state, save_state
from griffin_core_jax.devices import targeting
from griffin_core_jax.dispatch import Wanted, wanted_now
from griffin_core_jax.native import dump_params, load_params
from griffin_core_jax.optimizer import evaluation_params, init_optimizer
from griffin_core_jax.step import loss_fn, train_step
from griffin_core_jax.threads import start_with_threads


class Trainer:
    """Takes optimiser steps on packed batches; equal inputs on equal machines, threads and versions give equal bits.

    Args:
        config: the architecture.
        params: canonical arrays by name; copied, to float32.
        options: schedule, optimiser and precision.
        kernel: name of a kernel for the recurrent operations, or None.
        threads: threads of JAX's processor backend; it can be set only before a process uses JAX. None is one a core.
        device: "cpu", "gpu", "tpu", with ":N" for one of several, or None for JAX's default.
        remat: what the backward pass keeps of each layer ("none", "block", "outputs"); None is "block" where
            ``options.checkpoint_activations``, else "none".

    Attributes:
        step_number: steps taken so far.

    Raises:
        ConfigError: the number of threads cannot be had, or there is no such ``remat``.
    """

    threads_change = False
    """Another trainer of the same process cannot have another number of threads."""

    def __init__(
        self,
        config: GriffinConfig,
        params: Mapping[str, Array],
        options: TrainerOptions,
        kernel: str | None = None,
        threads: int | None = None,
        device: str | None = None,
        remat: str | None = None,
    ) -> None:
        self.check(options, threads)
        self.config, self.options, self.step_number = config, options, 0
        policy = remat or (remats.BLOCK if options.checkpoint_activations else remats.NONE)
        remats.wrap_layers(policy)
        self._params = _placed(load_params(config, params, "float32", device))
        wanted = wanted_now(kernel, self._params["final_norm"])
        self._program = _Program(config, _without_schedule(options), wanted, policy)
        self._opt_state = _placed(_begin(self._program, self._params))

    @staticmethod
    def check(options: TrainerOptions, threads: int | None = None) -> None:
        """Refuse what this backend cannot train with, before anything is made; starts the threads asked for.

        Raises:
            ConfigError: that number of threads cannot be had.
        """
        if threads is not None:
            start_with_threads(threads)

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
        arrays, count = check_batch(self.config, batch)
        if count == 0:
            raise InputError("no position of the batch has a target; expected at least one target that is not -1")
        rate = learning_rate(self.step_number, self.options)
        self._params, self._opt_state, found = _step(
            self._program, self._params, self._opt_state, arrays, np.float32(rate)
        )
        self.step_number += bool(found["finite"])
        return {
            "loss": float(found["loss"]),
            "grad_norm": float(found["grad_norm"]),
            "learning_rate": rate,
            "tokens": float((arrays["positions"] != PAD).sum()),
        }

    def evaluate(self, batch: Mapping[str, Array]) -> tuple[float, int]:
        """(summed loss in nats, number of targets) of a batch; nothing is learned."""
        arrays, count = check_batch(self.config, batch)
        return float(_evaluate(self._program, self._learned(), arrays)), count

    def params(self) -> dict[str, Array]:
        """The parameters to evaluate and keep, as canonical float32 arrays, copied.

        Of the schedule-free optimiser they are the average of its points, not the point that it trains at.
        """
        return dump_params(self.config, self._learned())

    def save(self, directory: str | Path, iterator: Any = None) -> None:
        """Write everything needed to go on, whole or not at all.

        Args:
            iterator: a grain iterator whose place is saved too, or None.

        Raises:
            CheckpointError: a value is not finite, or the disk refuses.
        """
        save_state(Path(directory), self.config, self.options, self.step_number, self._state(), iterator)

    def restore(self, directory: str | Path, iterator: Any = None) -> None:
        """Go on from a saved state.

        Args:
            iterator: a grain iterator that goes on where the saved one stood, or None.

        Raises:
            CheckpointError: it is damaged or unreadable; this trainer is unchanged.
            CheckpointMismatch: it belongs to another config, other options or another backend.
            InputError: an iterator is given, and none was saved.
        """
        step, state = load_state(Path(directory), self.config, self.options, self._state(), iterator)
        self.step_number, self._params, self._opt_state = step, state["params"], state["optimizer"]

    def _state(self) -> dict[str, Any]:
        return {"params": self._params, "optimizer": self._opt_state}

    def _learned(self) -> Any:
        if self.options.optimizer == ADAMW:
            return self._params
        return _average(self._program, self._params, self._opt_state)


class _Program(NamedTuple):
    """What decides about the compiled programs besides shapes; trainers with equal ones share them."""

    config: GriffinConfig
    options: TrainerOptions
    wanted: Wanted
    remat: str


def _without_schedule(options: TrainerOptions) -> TrainerOptions:
    """Options that decide about the program: the rate of a step is an argument of it."""
    return replace(options, steps=1, warmup=0, learning_rate=1.0, final_fraction=0.0)


def _placed(tree: Any) -> Any:
    """The same arrays bound to where they are, as restored ones are: a step is then compiled once for both."""
    return jax.tree.map(lambda x: jax.device_put(x, x.sharding), tree)


@functools.partial(jax.jit, static_argnums=0)
def _begin(program: _Program, params: Any) -> Any:
    return init_optimizer(program.config, program.options, params)


@functools.partial(jax.jit, static_argnums=0)
def _average(program: _Program, params: Any, opt_state: Any) -> Any:
    return evaluation_params(program.options, params, opt_state)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def _step(program: _Program, params: Any, opt_state: Any, batch: Any, rate: JaxArray) -> Any:
    config, options, wanted, policy = program
    wrap, constrain = remats.wrap_layers(policy), remats.named()
    with targeting(wanted.platform):
        return train_step(
            config, options, params, opt_state, batch, rate, kernel=wanted.kernel, wrap=wrap, constrain=constrain
        )


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(program: _Program, params: Any, batch: Any) -> JaxArray:
    config, options, wanted, _ = program
    with targeting(wanted.platform):
        return loss_fn(config, params, batch, dtype=options.compute_dtype, kernel=wanted.kernel)[0]
