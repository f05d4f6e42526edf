"""What this installation of PyTorch can run on, and where arrays are made when nothing is said."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from griffin_core import env
from griffin_core.errors import BackendError, ConfigError

_default: torch.device | None = None  # of the process; None: as the environment has it


def devices() -> list[str]:
    """The processor with its threads, then every accelerator by name."""
    found = [f"cpu ({torch.get_num_threads()} threads)"]
    return found + [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]


@contextmanager
def on_device(name: str) -> Iterator[None]:
    """Inside the block arrays of which nothing else is said are made on this PyTorch device.

    Raises:
        ConfigError: PyTorch knows no such device.
        BackendError: this machine, or this build of PyTorch, does not have it.
    """
    global _default
    device = _named(name)
    before, _default = _default, device
    try:
        yield
    finally:
        _default = before


def made_on(device: str | torch.device | None) -> torch.device:
    """The device that was asked for, or the one in force."""
    return _in_force() if device is None else torch.device(device)


def platform() -> str:
    """Kind of the device in force: "cpu", "cuda"."""
    return _in_force().type


def synchronise() -> None:
    """Wait for everything that was started on the device in force."""
    if platform() == "cuda":
        torch.cuda.synchronize(_in_force())


def _in_force() -> torch.device:
    return _named(env.read("GRIFFIN_TORCH_DEVICE") or "cpu") if _default is None else _default


@functools.cache
def _named(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is unknown to PyTorch; expected cpu, cuda or cuda:1, say") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        build = "this PyTorch is built for processors alone" if torch.version.cuda is None else "it finds no such GPU"
        raise BackendError(f"device {name!r} cannot be used: {build}; griffin info lists the devices")
    return device
