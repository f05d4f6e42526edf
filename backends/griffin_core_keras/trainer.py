"""Training on Keras as the library's own loop asks for it: the model's ``train_on_batch``, one batch at a time.

The same compiled step that ``fit`` takes, so a run here and one with ``fit`` are one computation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from griffin_core.checkpoints.trainer_state import TrainerState, load_trainer_state, save_trainer_state
from griffin_core.checks import PAD, check_batch
from griffin_core.config import GriffinConfig
from griffin_core.errors import ConfigError, InputError
from griffin_core.layouts.keras import keras_places
from griffin_core.schedules import ADAMW, TrainerOptions, learning_rate
from griffin_core.shapes import Array
from griffin_core_keras import variables
from griffin_core_keras.causal_lm import GriffinCausalLM
from griffin_core_keras.engine import NAME, engine
from griffin_core_keras.optimizer import AdamW


class Trainer:
    """Takes AdamW steps on packed batches.

    Args:
        config: the architecture.
        params: canonical arrays by name; copied, to float32.
        options: schedule, optimiser and precision.
        kernel: name of a kernel for the recurrent operations, or None.
        threads: threads of the engine; None leaves them as they are.

    Attributes:
        step_number: steps taken so far.
        model: the compiled ``GriffinCausalLM``.

    Raises:
        ConfigError: ``options`` name an optimiser that this backend does not have, or threads cannot be set.
    """

    threads_change = NAME == "torch"
    """Whether another trainer of the same process can have another number of threads."""

    def __init__(
        self,
        config: GriffinConfig,
        params: Mapping[str, Array],
        options: TrainerOptions,
        kernel: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.check(options, threads)
        self.config, self.options, self.step_number = config, options, 0
        policy = "mixed_bfloat16" if options.compute_dtype == "bfloat16" else "float32"
        how: dict[str, Any] = {"kernel": kernel, "remat": options.checkpoint_activations, "padding": "right"}
        self.model = GriffinCausalLM(config, init=None, dtype=policy, **how)
        variables.assign(self.model, params.items())
        self._optimizer = AdamW.from_options(options)
        self.model.compile(self._optimizer)
        self._optimizer.build(self.model.trainable_variables)

    @staticmethod
    def check(options: TrainerOptions, threads: int | None = None) -> None:
        """Refuse what this backend cannot train with, before anything is made; sets the threads asked for.

        Raises:
            ConfigError: ``options`` name an optimiser that it does not have, or the threads cannot be had.
        """
        if options.optimizer != ADAMW:
            raise ConfigError(
                f"the keras backend has no optimizer {options.optimizer!r}; take {ADAMW!r}, or --backend jax"
            )
        if threads is not None:
            engine.set_threads(threads)

    def step(self, batch: Mapping[str, Array]) -> dict[str, float]:
        """One step on the mean loss over the batch's targets.

        A step whose gradient norm is not finite changes nothing and is not counted: the caller sees it in the figures.

        Args:
            batch: int32 [b t] tokens, targets (-1: no loss) and positions (-1: padding, at the ends of rows).

        Returns:
            loss (nats per target), grad_norm (before clipping), learning_rate, tokens (padding not counted).

        Raises:
            InputError: an array is missing or misshapen, an id or a position is not legal, or nothing has a target.
        """
        inputs, targets, count = self._checked(batch)
        if count == 0:
            raise InputError("no position of the batch has a target; expected at least one target that is not -1")
        rate = learning_rate(self.step_number, self.options)
        self.model.reset_metrics()
        loss = float(self.model.train_on_batch(inputs, targets, return_dict=True)["loss"])
        norm = float(engine.to_numpy(self._optimizer.grad_norm.value))
        self.step_number += bool(np.isfinite(norm))
        tokens = float((inputs["positions"] != PAD).sum())
        return {"loss": loss, "grad_norm": norm, "learning_rate": rate, "tokens": tokens}

    def evaluate(self, batch: Mapping[str, Array]) -> tuple[float, int]:
        """(summed loss in nats, number of targets) of a batch; nothing is learned."""
        inputs, targets, count = self._checked(batch)
        self.model.reset_metrics()
        return float(self.model.test_on_batch(inputs, targets, return_dict=True)["loss"]) * count, count

    def params(self) -> dict[str, Array]:
        """The parameters as canonical float32 arrays, copied."""
        return variables.dump(self.model)

    def save(self, directory: str | Path) -> None:
        """Write everything needed to go on, whole or not at all.

        Raises:
            CheckpointError: the disk refuses.
        """
        first, second = (self._moments(moments) for moments in (self._optimizer.first, self._optimizer.second))
        state = TrainerState(self.step_number, self.params(), first, second)
        save_trainer_state(Path(directory), self.config, self.options, state, self._name())

    def restore(self, directory: str | Path) -> None:
        """Go on from a saved state.

        Raises:
            CheckpointError: it is damaged or unreadable; this trainer is unchanged.
            CheckpointMismatch: it belongs to another config, other options, another backend or engine.
        """
        state = load_trainer_state(Path(directory), self.config, self.options, self._name())
        variables.assign(self.model, state.weights.items())
        saved = (state.first_moments, state.second_moments)
        for moments, arrays in zip((self._optimizer.first, self._optimizer.second), saved, strict=True):
            for place, variable in self._by_place(moments):
                variable.assign(engine.from_numpy(place.transform.there(arrays[place.canonical])))
        self.step_number = state.step
        self._optimizer.iterations.assign(state.step)
        self._optimizer.updates.assign(float(state.step))

    def _checked(self, batch: Mapping[str, Array]) -> tuple[dict[str, Array], Array, int]:
        arrays, count = check_batch(self.config, batch)
        return {name: arrays[name] for name in ("tokens", "positions")}, arrays["targets"], count

    def _moments(self, moments: list[Any]) -> dict[str, Array]:
        return {
            place.canonical: np.ascontiguousarray(place.transform.back(engine.to_numpy(variable.value)))
            for place, variable in self._by_place(moments)
        }

    def _by_place(self, moments: list[Any]) -> list[tuple[Any, Any]]:
        """Each parameter's place, and its moment."""
        order = {id(variable): moment for variable, moment in zip(self.model.trainable_variables, moments, strict=True)}
        places = keras_places(self.config)
        return [(place, order[id(variables.variable_at(self.model, place.variable))]) for place in places]

    @staticmethod
    def _name() -> str:
        """What the state belongs to: engines round differently, so a run goes on with the one that it began with."""
        return f"keras-{NAME}"
