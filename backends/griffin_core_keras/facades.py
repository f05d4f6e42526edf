"""The library's ``Model`` on Keras: what ``griffin_core.load`` gives here, and what a Keras model generates with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.layouts.params import EMBEDDING, param_table
from griffin_core.model import Model
from griffin_core.presets import BYTE_VOCAB, preset
from griffin_core.shapes import Array
from griffin_core.text.tokenizer import ByteTokenizer, from_files
from griffin_core_keras import variables
from griffin_core_keras.causal_lm import GriffinCausalLM

KERAS_SUFFIXES = (".keras", ".h5")


class KerasModel(Model):
    """A ``griffin_core.Model`` that is a Keras model too: ``compile``, ``fit``, ``summary``, ... of ``keras``.

    Until one of these is asked for no layer is made; from then on the layers' variables are the weights.
    """

    @property
    def params(self) -> Any:
        """The weights in the backend's native form, as they are now."""
        built = self.__dict__.get("_built")
        return self.__dict__["_params"] if built is None else variables.tensors(built)

    @params.setter
    def params(self, value: Any) -> None:
        self.__dict__["_params"] = value

    @property
    def keras(self) -> GriffinCausalLM:
        """The Keras model on these weights."""
        if "_built" not in self.__dict__:
            model = GriffinCausalLM(self.config, init=None, kernel=self.kernel, dtype=self.dtype)
            arrays = variables.dump_tensors(self.config, self.__dict__.pop("_params"))
            variables.assign(model, arrays.items())
            model.tokenizer, model.trained = self.tokenizer, self.trained
            self.__dict__["_built"] = model
        found: GriffinCausalLM = self.__dict__["_built"]
        return found

    def dump_params(self) -> dict[str, Array]:
        """The weights in canonical form: NumPy arrays by the names of the parameter table."""
        built = self.__dict__.get("_built")
        return super().dump_params() if built is None else variables.dump(built)

    def save(self, path: str | Path, *args: Any, **options: Any) -> None:
        """A ``.keras`` file by Keras where the path ends so, else a native checkpoint (``griffin_core.Model.save``)."""
        if Path(path).suffix in KERAS_SUFFIXES:
            self.keras.save(path, *args, **options)
        else:
            super().save(path, *args, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(GriffinCausalLM, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.keras, name)


def facade(model: Model) -> KerasModel:
    """The same model with Keras's methods."""
    names = ("config", "params", "backend", "dtype", "tokenizer", "kernel", "device", "source", "trained")
    return KerasModel(**{name: getattr(model, name) for name in names}, weights_digest=model.weights_digest)


def of_keras(model: GriffinCausalLM) -> KerasModel:
    """The library's view of a Keras model, for generation and scoring; the weights are the model's own."""
    view = KerasModel(
        config=model.config,
        params=None,
        backend="keras",
        dtype=model.variable_dtype,  # what its weights are, so generation computes in it
        tokenizer=model.tokenizer,
        kernel=model.kernel,
        trained=model.trained,
    )
    view.__dict__["_built"] = model
    return view


def from_preset(name: str, seed: int = 0, **options: Any) -> GriffinCausalLM:
    """A model with a preset's random weights; generating from it warns.

    Raises:
        ConfigError: there is no such preset.
    """
    found = preset(name)
    options.setdefault("init", found.init)
    model = GriffinCausalLM(found.config, seed=seed, **options)
    model.tokenizer = ByteTokenizer() if found.config.vocab_size == BYTE_VOCAB else None
    return model


def from_checkpoint(path: str | Path, dtype: Any = None, verify: bool = True, **options: Any) -> GriffinCausalLM:
    """A model with the weights of a checkpoint of any format.

    Args:
        dtype: a Keras policy; None keeps the checkpoint's dtype.
        verify: prove the files' integrity and refuse NaN and infinite weights.
        options: ``config`` and ``window_convention`` of ``griffin_core.load``; else arguments of the class.

    Raises:
        CheckpointError: it is not a checkpoint, or is damaged.
    """
    reading = {name: options.pop(name) for name in ("config", "window_convention") if name in options}
    checkpoint = open_checkpoint(path, verify=verify, **reading)
    chosen = dtype or checkpoint.params[EMBEDDING].dtype.name
    decays = {checkpoint.params[row.name].dtype.name for row in param_table(checkpoint.config) if row.float32}
    if len(decays) == 1:
        options.setdefault("decay_dtype", decays.pop())
    model = GriffinCausalLM(checkpoint.config, init=None, dtype=chosen, **options)
    variables.assign(model, checkpoint.params.items())
    model.tokenizer, model.trained = from_files(checkpoint.tokenizer_files), True
    return model
