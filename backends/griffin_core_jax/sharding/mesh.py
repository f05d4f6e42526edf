"""Meshes, and arrays put on them. Everything that cannot be split is refused here, on the host, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from griffin_core.config import ATTENTION, RECURRENT, GriffinConfig
from griffin_core.errors import ConfigError, InputError
from griffin_core_jax.sharding.table import AXES, DATA, FSDP, SEQUENCE, TENSOR, batch_spec, param_shardings, state_specs


def make_mesh(
    devices: Sequence[Any] | None = None,
    data: int | None = None,
    fsdp: int = 1,
    tensor: int = 1,
    sequence: int = 1,
) -> Mesh:
    """A mesh with the axes data, fsdp, sequence and tensor.

    Args:
        devices: those to use; None is all of JAX's default platform. On TPUs they are arranged so that neighbours of
            ``tensor`` are neighbours on the network.
        data: copies of the parameters that see other rows; None is what the other sizes leave.
        fsdp: pieces of the parameters, gathered layer by layer; each sees other rows too.
        tensor: pieces of the width.
        sequence: pieces of the time axis.

    Raises:
        ConfigError: a size is not positive, or their product is not the number of devices.
    """
    given = list(jax.devices() if devices is None else devices)
    for name, size in ((FSDP, fsdp), (TENSOR, tensor), (SEQUENCE, sequence), (DATA, 1 if data is None else data)):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(f"{name}={size!r}; expected a positive integer")
    others = fsdp * tensor * sequence
    shape = (len(given) // others if data is None else data, fsdp, sequence, tensor)
    if math.prod(shape) != len(given):
        sizes = f"fsdp={fsdp} x sequence={sequence} x tensor={tensor}"
        sizes = sizes if data is None else f"data={data} x {sizes}"
        verb = "divides" if data is None else "is"
        raise ConfigError(f"mesh of {sizes} for {len(given)} devices; choose sizes whose product {verb} {len(given)}")
    if given[0].platform == "tpu":
        return Mesh(mesh_utils.create_device_mesh(shape, given, allow_split_physical_axes=True), AXES)
    return Mesh(np.array(given).reshape(shape), AXES)


def legal_tensor_sizes(config: GriffinConfig) -> tuple[int, ...]:
    """Sizes that ``tensor`` can have: what divides heads, gate blocks, MLP width and vocabulary alike."""
    return _divisors(math.gcd(*_split_counts(config).values()))


def check_mesh(config: GriffinConfig, mesh: Mesh) -> None:
    """Refuse a mesh that a model cannot be split over.

    Raises:
        ConfigError: naming what is not divisible and the legal sizes.
    """
    if tuple(mesh.axis_names) != AXES:
        raise ConfigError(f"mesh has the axes {tuple(mesh.axis_names)}; expected {AXES}, as make_mesh gives them")
    tensor, fsdp = mesh.shape[TENSOR], mesh.shape[FSDP]
    broken = [f"{name}={count}" for name, count in _split_counts(config).items() if count % tensor]
    if broken:
        legal = _listed(legal_tensor_sizes(config))
        raise ConfigError(f"tensor={tensor} does not divide {' and '.join(broken)}; legal sizes are {legal}")
    broken = [f"{name}={count}" for name, count in _gathered_counts(config).items() if count % fsdp]
    if broken:
        legal = _listed(_divisors(math.gcd(*_gathered_counts(config).values())))
        raise ConfigError(f"fsdp={fsdp} does not divide {' and '.join(broken)}; legal sizes are {legal}")


def check_batch(config: GriffinConfig, mesh: Mesh, shape: tuple[int, ...]) -> None:
    """Refuse tokens [b t] that a mesh cannot split.

    Raises:
        InputError: naming the axis and what must divide it.
    """
    if len(shape) != 2:
        raise InputError(f"tokens have shape {shape}; expected [batch, time]")
    rows, pieces = mesh.shape[DATA] * mesh.shape[FSDP], mesh.shape[SEQUENCE]
    if shape[0] % rows:
        raise InputError(
            f"a batch of {shape[0]} rows cannot be split over data x fsdp = {rows} devices; use a multiple of {rows}"
        )
    if shape[1] % pieces:
        raise InputError(f"{shape[1]} tokens a row cannot be split over sequence={pieces}; use a multiple of {pieces}")
    least = config.conv_width - 1
    if pieces > 1 and shape[1] // pieces < least:
        raise InputError(
            f"{shape[1]} tokens a row over sequence={pieces} are {shape[1] // pieces} a device, but the convolution "
            f"looks {least} back; use at least {least * pieces} tokens or fewer pieces"
        )


def shard_params(config: GriffinConfig, mesh: Mesh, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters (the native form, see ``load_params``) on the devices of a mesh.

    Raises:
        ConfigError: the model cannot be split so.
    """
    check_mesh(config, mesh)
    placed: dict[str, Any] = jax.device_put(dict(params), param_shardings(config, mesh))
    return placed


def shard_state(config: GriffinConfig, mesh: Mesh, state: Mapping[str, Any]) -> dict[str, Any]:
    """A decode state on the devices of a mesh: rows over data and fsdp, recurrent widths over tensor.

    Raises:
        ConfigError: the model cannot be split so, or the mesh has a sequence axis.
        InputError: the rows cannot be.
    """
    check_mesh(config, mesh)
    check_stateful(mesh)
    check_batch(config, mesh, (state["position"].shape[0], 1))
    specs = jax.tree.map(
        lambda spec: NamedSharding(mesh, spec), state_specs(config), is_leaf=lambda x: isinstance(x, PartitionSpec)
    )
    placed: dict[str, Any] = jax.device_put(dict(state), specs)
    return placed


def shard_batch(config: GriffinConfig, mesh: Mesh, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Host arrays [b t] (tokens, targets, positions) on the devices of a mesh.

    Raises:
        InputError: they cannot be split so.
    """
    for value in batch.values():
        check_batch(config, mesh, tuple(np.shape(value)))
    where = NamedSharding(mesh, batch_spec())
    return {name: jax.device_put(np.asarray(value), where) for name, value in batch.items()}


def check_stateful(mesh: Mesh) -> None:
    """Refuse a sequence axis where a decode state is carried.

    Raises:
        ConfigError: the time axis is split.
    """
    if mesh.shape[SEQUENCE] > 1:
        raise ConfigError(f"a decode state needs sequence=1, the mesh has {mesh.shape[SEQUENCE]}; make one without")


def _split_counts(config: GriffinConfig) -> dict[str, int]:
    """What ``tensor`` must divide, by the config's field."""
    counts = {"num_heads": config.num_heads, "gate_blocks": config.gate_blocks}
    if ATTENTION not in config.layer_kinds:
        del counts["num_heads"]
    if RECURRENT not in config.layer_kinds:
        del counts["gate_blocks"]
    return {**counts, "mlp_width": config.mlp_width, "vocab_size": config.vocab_size}


def _gathered_counts(config: GriffinConfig) -> dict[str, int]:
    """What ``fsdp`` must divide: the model's width, and the width of a gate block."""
    counts = {"width": config.width}
    return {**counts, "block width": config.block_width} if RECURRENT in config.layer_kinds else counts


def _divisors(number: int) -> tuple[int, ...]:
    return tuple(size for size in range(1, number + 1) if number % size == 0)


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))
