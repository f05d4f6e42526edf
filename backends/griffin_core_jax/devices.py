"""Which devices there are, and for which one a program is being made."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import jax
from jax import lax

from griffin_core.errors import BackendError

_target = jax.make_user_context(None)  # part of jit's cache key
_PLATFORMS = {"gpu": "cuda", "cuda": "cuda", "rocm": "rocm", "tpu": "tpu", "cpu": "cpu"}


def devices() -> list[str]:
    """Every device of JAX's default platform, then the processor; ``griffin info`` shows it."""
    found = [f"{_platform_of(d)}:{d.id} ({d.device_kind})" for d in jax.devices()]
    return found if jax.default_backend() == "cpu" else [*found, "cpu"]


def find_device(name: str) -> jax.Device:
    """The device that "cpu", "gpu", "tpu" or "cuda:1" names.

    Raises:
        BackendError: there is none; those that there are are listed.
    """
    platform, _, index = name.partition(":")
    try:
        found = jax.devices({"cuda": "gpu"}.get(platform, platform))
        return found[int(index or 0)]
    except (RuntimeError, IndexError, ValueError) as error:
        raise BackendError(f"JAX has no device {name!r}; there are {', '.join(devices())}") from error


def targeting(platform: str) -> AbstractContextManager[None]:
    """Choose kernels for ``platform`` ("tpu", "cuda", "cpu") inside the block, whatever this machine has.

    For ahead-of-time compilation; a program that is traced here runs there.
    """
    context: AbstractContextManager[None] = _target(platform)
    return context


def platform(*arrays: Any) -> str:
    """Where a computation on these arrays runs: "cpu", "cuda", "rocm" or "tpu".

    The target of ``targeting``; else the platform of the first array that has one; else JAX's default.
    """
    chosen: str | None = _target.value
    if chosen is not None:
        return chosen
    for x in arrays:
        if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer):
            return _platform_of(next(iter(x.devices())))
    default = jax.config.jax_default_device  # type: ignore[attr-defined]
    if isinstance(default, jax.Device):
        return _platform_of(default)
    return _PLATFORMS.get(default or jax.default_backend(), str(default or jax.default_backend()))


def settled(x: jax.Array) -> jax.Array:
    """x, which a processor computes once and keeps; XLA would compute it again in each loop that reads it."""
    return lax.optimization_barrier(x) if platform() == "cpu" else x


def _platform_of(device: jax.Device) -> str:
    if device.platform == "gpu":
        return "rocm" if "rocm" in device.client.platform_version.lower() else "cuda"
    return str(device.platform)
