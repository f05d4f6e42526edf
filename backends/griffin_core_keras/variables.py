"""Canonical parameters in and out of a Keras model's variables, by the layout table and never by Keras's own paths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from keras import ops

from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointMismatch
from griffin_core.layouts.keras import keras_places
from griffin_core.layouts.params import check_params, param_table
from griffin_core.shapes import DTYPES, Array
from griffin_core_keras.engine import engine
from griffin_core_keras.layers.dense import Dense
from griffin_core_keras.layers.embedding import Embedding


def layer_at(model: Any, path: str) -> Any:
    """The layer that the attributes of "layer_0/temporal_block/linear_x" lead to."""
    found = model
    for name in filter(None, path.split("/")):
        found = getattr(found, name)
    return found


def variable_at(model: Any, path: str) -> Any:
    """The Keras variable of "layer_0/temporal_block/linear_x/kernel"."""
    owner, _, leaf = path.rpartition("/")
    return next(variable for variable in layer_at(model, owner).variables if variable.name == leaf)


def assign(model: Any, arrays: Iterable[tuple[str, Array]]) -> None:
    """Give variables the values of canonical arrays, which are converted to the variables' dtypes.

    Args:
        model: a ``GriffinCausalLM``.
        arrays: (canonical name, array), one after another: only one is held at a time.

    Raises:
        CheckpointMismatch: names or shapes are not the config's, or a layer is quantised or adapted.
    """
    _require_plain(model, "assign weights to")
    places = {place.canonical: place for place in keras_places(model.config)}
    shapes = {}
    for name, array in arrays:
        shapes[name] = tuple(array.shape)
        place = places.get(name)
        if place is None:
            continue
        variable = variable_at(model, place.variable)
        value = place.transform.there(np.asarray(array))
        if tuple(value.shape) != tuple(variable.shape):
            continue
        variable.assign(engine.from_numpy(value, engine.dtype_name(ops.convert_to_tensor(variable))))
    check_params(model.config, shapes)


def dump(model: Any) -> dict[str, Array]:
    """Canonical arrays of a model's variables, copied, in their dtypes; adapters are merged in.

    Decay parameters are float32 variables always; they get the dtype that they were read in where they fit into it.
    """
    found = dump_tensors(model.config, tensors(model))
    narrow = DTYPES[model.decay_dtype]
    for row in param_table(model.config):
        if row.float32 and np.array_equal(found[row.name].astype(narrow).astype(np.float32), found[row.name]):
            found[row.name] = found[row.name].astype(narrow)
    return found


def dump_tensors(config: GriffinConfig, params: dict[str, Any]) -> dict[str, Array]:
    """Canonical arrays of native parameters."""
    return {
        place.canonical: np.ascontiguousarray(place.transform.back(engine.to_numpy(params[place.canonical])))
        for place in keras_places(config)
    }


def tensors(model: Any) -> dict[str, Any]:
    """The native form (``native.load_params``) of a model's present weights; plain ones are not copied.

    Adapted kernels are merged, quantised ones widened to float32.
    """
    found = {}
    for place in keras_places(model.config):
        owner, _, leaf = place.variable.rpartition("/")
        layer = layer_at(model, owner)
        if isinstance(layer, Dense) and leaf == "kernel":
            found[place.canonical] = layer.float_kernel()
        elif isinstance(layer, Embedding):
            found[place.canonical] = layer.matrix()
        else:
            found[place.canonical] = ops.convert_to_tensor(variable_at(model, place.variable))
    return found


def decayed(config: GriffinConfig) -> set[str]:
    """Paths of the variables that the parameter table lets decay."""
    rows = {row.name for row in param_table(config) if row.decay}
    return {place.variable for place in keras_places(config) if place.canonical in rows}


def _require_plain(model: Any, what: str) -> None:
    for layer in model._flatten_layers():
        if getattr(layer, "quantization_mode", None) is not None or getattr(layer, "lora_enabled", False):
            kind = "adapted" if getattr(layer, "lora_enabled", False) else "quantised"
            raise CheckpointMismatch(f"cannot {what} {layer.path}: it is {kind}; do it on a model made anew")
