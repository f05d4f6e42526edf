"""How many threads XLA's processor backend computes with: settled once, when it starts."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import jax

from griffin_core.errors import ConfigError

_TASKS = Path("/proc/self/task")
_POOL = "tf_XLAEigen"


def start_with_threads(count: int) -> None:
    """Start JAX's processor backend with a pool of ``count`` threads.

    XLA takes as many as the process may use cores while the backend starts, so that is narrowed for this moment. The
    process and the pool may use every core again afterwards.

    Raises:
        ConfigError: there are fewer cores, the backend has started with another number, or the system is not Linux.
    """
    if sys.platform != "linux":
        raise ConfigError(f"threads={count}; XLA takes one a core on {sys.platform}, leave the number of threads out")
    cores = os.sched_getaffinity(0)
    if not 1 <= count <= len(cores):
        raise ConfigError(f"threads={count}; XLA takes at most one a core, and this process may use {len(cores)}")
    os.sched_setaffinity(0, sorted(cores)[:count])
    try:
        jax.devices("cpu")
    finally:
        for task in _TASKS.iterdir():
            with contextlib.suppress(ProcessLookupError):  # a thread may have ended meanwhile
                os.sched_setaffinity(int(task.name), cores)
    found = sum((task / "comm").read_text().strip() == _POOL for task in _TASKS.iterdir())
    if found != count:
        raise ConfigError(
            f"threads={count}; JAX runs in this process with {found} already and cannot change that; "
            "set the number before anything else uses JAX, or leave it out"
        )
