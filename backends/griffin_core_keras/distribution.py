"""A model over several devices: Keras's distribution with a layout map from the parameters' logical axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from griffin_core.config import GriffinConfig
from griffin_core.errors import BackendError, ConfigError
from griffin_core.layouts.keras import keras_places
from griffin_core.layouts.params import param_table
from griffin_core.layouts.places import TRANSPOSE
from griffin_core_keras.engine import NAME


def model_parallel(
    config: GriffinConfig, data: int | None = None, tensor: int = 1, devices: Sequence[str] | None = None
) -> Any:
    """A ``keras.distribution.ModelParallel`` for this model, to be set before the model is made.

    Args:
        data: groups of devices that see other rows; None is what ``tensor`` leaves.
        tensor: pieces of the width: heads, gate blocks, MLP and vocabulary are split in so many.
        devices: names as ``keras.distribution.list_devices`` gives them; None is all of them.

    Raises:
        BackendError: the engine is not JAX.
        ConfigError: the sizes are not those of the devices, or ``tensor`` does not divide the model.
    """
    if NAME != "jax":
        reason = "keras.distribution has no implementation there" if NAME == "torch" else "it was not proven there"
        raise BackendError(
            f"a distribution needs the jax engine, and Keras runs on {NAME}: {reason}; set KERAS_BACKEND=jax"
        )
    from griffin_core_jax.sharding.mesh import check_mesh
    from griffin_core_jax.sharding.table import AXES, DATA

    names = list(keras.distribution.list_devices() if devices is None else devices)
    rows = len(names) // tensor if data is None and tensor > 0 else data
    if tensor < 1 or not rows or rows * tensor != len(names):
        raise ConfigError(f"data={data} x tensor={tensor} for {len(names)} devices; choose sizes whose product is that")
    mesh = keras.distribution.DeviceMesh((rows, 1, 1, tensor), list(AXES), names)
    check_mesh(config, mesh.backend_mesh)
    return keras.distribution.ModelParallel(layout_map=layout_map(config, mesh), batch_dim_name=DATA)


def layout_map(config: GriffinConfig, mesh: Any) -> Any:
    """The layout of every variable, by its path: mesh axes of its logical axes (``griffin_core_jax.sharding.table``).

    Args:
        mesh: a ``keras.distribution.DeviceMesh`` with the axes data, fsdp, sequence and tensor.
    """
    from griffin_core_jax.sharding.table import partition

    rows = {row.name: row for row in param_table(config)}
    found = keras.distribution.LayoutMap(mesh)
    for place in keras_places(config):
        axes = rows[place.canonical].axes
        split = partition(axes[::-1] if place.transform is TRANSPOSE else axes)
        found[f"^{place.variable}$"] = tuple(split)
    return found
