"""Callbacks for ``fit``: text written by the model while it learns, and training that survives being killed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from griffin_core.checkpoints.files import replacing
from griffin_core.checkpoints.sealed import read_sealed, write_sealed
from griffin_core.checkpoints.tensor_file import TensorOut, map_tensors, read_header, write_tensors
from griffin_core.checkpoints.trainer_state import check_file
from griffin_core.errors import CheckpointMismatch
from griffin_core_keras.engine import NAME, engine
from griffin_core_keras.feeding import FitBatches

_KIND = "griffin-core keras fit 1"
_RECORD = "fit.json"
_PARTS = ("variables", "optimizer")


class SampleText(keras.callbacks.Callback):
    """Writes a continuation of a prompt at the end of epochs.

    Args:
        prompt: text to continue.
        every: epochs between two samples.
        max_new_tokens, settings: as of ``GriffinCausalLM.generate``.
        to: where it is written; None is standard output.
    """

    def __init__(self, prompt: str, every: int = 1, max_new_tokens: int = 64, to: Any = None, **settings: Any) -> None:
        super().__init__()
        self.prompt, self.every, self.max_new_tokens, self.settings = prompt, every, max_new_tokens, settings
        self._to = to

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Sample, when it is time."""
        if (epoch + 1) % self.every == 0:
            _settle(self.model)
            text = self.model.generate(self.prompt, max_new_tokens=self.max_new_tokens, **self.settings)
            print(f"epoch {epoch + 1}: {self.prompt}{text}", file=self._to or sys.stdout, flush=True)


class SaveAndResume(keras.callbacks.Callback):
    """Saves everything that ``fit`` needs to go on, at the end of each epoch; whole or not at all.

    ``keras.callbacks.BackupAndRestore`` merges adapters into their kernels when it saves and resets them to zero when
    it restores, from where no gradient leads away, and knows nothing of the data's place. Here every variable is kept
    as it is. Make epochs short windows of steps: one that is cut off is trained again, on the same batches.

    Use: ``fit(feed.stream(), shuffle=False, initial_epoch=saving.restore(model), steps_per_epoch=..., epochs=...,
    callbacks=[saving])``

    Args:
        directory: where the state is kept; replaced at each epoch's end.
        feed: the batches, whose place is saved too; None where the data starts anew with each epoch.
    """

    def __init__(self, directory: str | Path, feed: FitBatches | None = None) -> None:
        super().__init__()
        self.directory, self.feed = Path(directory), feed
        self._batches = 0

    def restore(self, model: Any) -> int:
        """Give a compiled model, and the data, the saved state; the epoch to go on with is returned, 0 without one.

        Raises:
            CheckpointError: the state is damaged; the model is unchanged.
            CheckpointMismatch: it belongs to another model, optimiser or engine.
        """
        self._batches = 0
        if not (self.directory / _RECORD).exists():
            return 0
        body = read_sealed(self.directory / _RECORD, _KIND)
        model.optimizer.build(model.trainable_variables)
        groups = _groups(model)
        self._check(body, groups)
        saved = {}
        for part in _PARTS:
            path = self.directory / f"{part}.safetensors"
            check_file(path, body["files"][path.name])
            saved[part] = map_tensors(path, read_header(path))
        for part, variables in groups.items():
            for name, variable in variables.items():
                variable.assign(engine.from_numpy(saved[part][name]))
        model.optimizer.iterations.assign(body["iterations"])
        model.trained = True
        if self.feed is not None:
            self.feed.go_on(body["data"])
        return int(body["epochs"])

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Count the batches that were trained on."""
        self._batches += 1

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save."""
        _settle(self.model)
        groups = _groups(self.model)
        with replacing(self.directory) as part:
            files = {}
            for name, variables in groups.items():
                path = part / f"{name}.safetensors"
                arrays = {key: engine.to_numpy(variable.value) for key, variable in variables.items()}
                written = write_tensors(path, [TensorOut(key, x, x.dtype.name) for key, x in arrays.items()])
                files[path.name] = {"size": written.size, "sha256": written.sha256}
            body = {
                "epochs": epoch + 1,
                "iterations": int(engine.to_numpy(self.model.optimizer.iterations.value)),
                "engine": NAME,
                "shapes": {name: _shapes(variables) for name, variables in groups.items()},
                "data": None if self.feed is None else self.feed.place_after(self._batches),
                "files": files,
            }
            write_sealed(part / _RECORD, _KIND, body)

    def _check(self, body: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]) -> None:
        if body["engine"] != NAME:
            raise CheckpointMismatch(
                f"{self.directory} was saved on {body['engine']}, and Keras runs on {NAME}; rounding differs, so set "
                f"KERAS_BACKEND={body['engine']}"
            )
        for part, variables in groups.items():
            saved, here = body["shapes"][part], _shapes(variables)
            for name in sorted(set(saved) ^ set(here)) or [n for n in here if saved[n] != here[n]]:
                raise CheckpointMismatch(
                    f"{self.directory} was saved from another {part}: {name} is {saved.get(name)} there and "
                    f"{here.get(name)} here; make the model and its optimizer as they were"
                )
        if (body["data"] is None) != (self.feed is None):
            word = "without" if body["data"] is None else "with"
            raise CheckpointMismatch(f"{self.directory} was saved {word} a feed; make the callback {word} one, too")


def _groups(model: Any) -> dict[str, dict[str, Any]]:
    """The model's variables and the optimiser's floating ones, by part and unique name."""
    floats = [v for v in model.optimizer.variables if "float" in keras.backend.standardize_dtype(v.dtype)]
    return {"variables": {v.path: v for v in model.variables}, "optimizer": {v.path: v for v in floats}}


def _shapes(variables: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: [int(size) for size in variable.shape] for name, variable in variables.items()}


def _settle(model: Any) -> None:
    """Give the variables their values: on JAX ``fit`` keeps them to itself between epochs."""
    sync = getattr(model, "jax_state_sync", None)
    if sync is not None:
        sync()
