"""Compile a function for a TPU that is not there: the compiler of the ``libtpu`` package needs no device."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from griffin_core import env
from griffin_core.errors import BackendError
from griffin_core_jax.devices import targeting as for_platform
from griffin_core_jax.tpu.chips import CHIPS, Chip, targeting
from griffin_core_jax.tpu.chips import chip as chip_named

INSTALL = "pip install 'griffin-core[tpu-aot]'"


@dataclass(frozen=True)
class Memory:
    """Bytes of one device that a compiled program takes, as the compiler counts them."""

    arguments: int
    outputs: int
    temporaries: int
    aliased: int
    peak: int


def require_libtpu() -> None:
    """Refuse where the TPU compiler is not installed.

    Raises:
        BackendError: no ``libtpu``; says how to install it.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise BackendError(f"the TPU compiler (libtpu) is not installed; {INSTALL} (libtpu is proprietary software)")


@functools.cache
def topology_devices(topology: str) -> tuple[Any, ...]:
    """Descriptions of a topology's devices, e.g. "v5e:2x2" or "v5e:16x16", none of which need exist.

    Two processes that compile at once need ALLOW_MULTIPLE_LIBTPU_LOAD=1 in their environment.

    Raises:
        BackendError: no ``libtpu``, or it does not know the topology.
    """
    require_libtpu()
    try:
        _load()
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:
        raise BackendError(f"libtpu does not describe the topology {topology!r}: {_one_line(error)}") from error
    return tuple(described.devices)


def compile_for(
    function: Callable[..., Any], arguments: Any, chip: Chip | str, options: dict[str, Any] | None = None
) -> jax.stages.Compiled:
    """Compile ``function(*arguments)`` for one device of a generation.

    Args:
        function: what ``jax.jit`` takes; kernels in it are chosen for TPUs and planned for ``chip``.
        arguments: sequence of pytrees of arrays or ``jax.ShapeDtypeStruct``; None leaves stay None. A struct that
            has a sharding keeps it, so that a program for many devices compiles too.
        chip: a row of ``tpu.chips.CHIPS``, or its name.
        options: the compiler's options.

    Returns:
        The compiled program; it can be inspected, never run.

    Raises:
        BackendError: no ``libtpu``.
        jax.errors.JaxRuntimeError: the compiler refuses the program (its memory, its kernels).
    """
    row = chip_named(chip) if isinstance(chip, str) else chip
    one = NamedSharding(Mesh(np.array(topology_devices(row.topology)[:1]), ("one",)), PartitionSpec())

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(leaf, "sharding", None) if isinstance(leaf, jax.ShapeDtypeStruct) else None
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding or one)

    placed = jax.tree.map(place, tuple(arguments))
    with for_platform("tpu"), targeting(row):
        return jax.jit(lambda *given: function(*given)).lower(*placed).compile(compiler_options=options)


def memory(compiled: jax.stages.Compiled) -> Memory:
    """The memory that one device needs for a compiled program."""
    found = compiled.memory_analysis()
    return Memory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.temp_size_in_bytes,
        found.alias_size_in_bytes,
        found.peak_memory_in_bytes,
    )


@functools.cache
def _load() -> None:
    """Load libtpu and have it read its flags.

    It ends the process at flags in XLA_FLAGS that it lacks, such as those for processors, so it is not shown them.
    """
    jax.devices()  # by now JAX has read them for itself
    with env.hidden("XLA_FLAGS"):
        described = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS["v5e"].topology)
        one = NamedSharding(Mesh(np.array(described.devices[:1]), ("one",)), PartitionSpec())
        jax.jit(lambda x: x).lower(jax.ShapeDtypeStruct((8, 128), np.float32, sharding=one)).compile()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
