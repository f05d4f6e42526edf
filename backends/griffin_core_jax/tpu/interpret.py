"""The switch that every ``pallas_call`` of this folder reads: compiled for a TPU, or interpreted on this host.

Private: tests and ``griffin verify`` set it. It is part of jit's cache key.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal, get_args

import jax
from jax.experimental.pallas import tpu as pltpu

from griffin_core.errors import ConfigError, nearest

Mode = Literal["off", "plain", "random"]

_mode = jax.make_user_context("off")


def interpreting(mode: Mode) -> AbstractContextManager[None]:
    """Interpret kernels traced inside the ``with`` block.

    Args:
        mode: "off": compile for the TPU. "plain": ``interpret=True``, the grid in order, fast. "random": the TPU
            simulator, with uninitialised memory full of NaN, parallel grid dimensions in random order and data
            races looked for; slow, for tiny shapes. Under ``shard_map`` it needs the environment variable
            NPROC=16 on hosts with few cores (it waits for ever without).

    Raises:
        ConfigError: no such mode.
    """
    if mode not in get_args(Mode):
        raise ConfigError(f"unknown interpretation {mode!r}; {nearest(mode, get_args(Mode))}")
    context: AbstractContextManager[None] = _mode(mode)
    return context


def mode() -> Mode:
    """The mode in force."""
    found: Mode = _mode.value
    return found


def interpret() -> Any:
    """What to pass to ``pallas_call(interpret=...)``."""
    if mode() == "random":
        return pltpu.InterpretParams(detect_races=True, random_seed=1, num_cores_or_threads=1)
    return mode() == "plain"
