"""Griffin Core: one spec and proven backends for Hawk, Griffin and RecurrentGemma.

Importing it imports neither a framework nor NumPy; names below are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from griffin_core.errors import (
    BackendError,
    CheckpointError,
    CheckpointMismatch,
    ConfigError,
    ConformanceError,
    GriffinError,
    InputError,
    KernelNotSupported,
    NotEnoughMemory,
    RandomWeightsWarning,
    StateMismatch,
    TrainingError,
)

if TYPE_CHECKING:
    from griffin_core.api import convert, init, load, packaged_checkpoint, verify
    from griffin_core.comparison import compare
    from griffin_core.config import GriffinConfig
    from griffin_core.model import Model
    from griffin_core.presets import PRESETS, preset
    from griffin_core.registry import backend_names, load_backend, register_kernel, use_backend
    from griffin_core.sampling import Sampling
    from griffin_core.schedules import TrainerOptions

    __version__: str

__all__ = [
    "PRESETS",
    "BackendError",
    "CheckpointError",
    "CheckpointMismatch",
    "ConfigError",
    "ConformanceError",
    "GriffinConfig",
    "GriffinError",
    "InputError",
    "KernelNotSupported",
    "Model",
    "NotEnoughMemory",
    "RandomWeightsWarning",
    "Sampling",
    "StateMismatch",
    "TrainerOptions",
    "TrainingError",
    "__version__",
    "backend_names",
    "compare",
    "convert",
    "init",
    "load",
    "load_backend",
    "packaged_checkpoint",
    "preset",
    "register_kernel",
    "use_backend",
    "verify",
]

_WHERE = {
    "convert": "api",
    "init": "api",
    "load": "api",
    "packaged_checkpoint": "api",
    "verify": "api",
    "compare": "comparison",
    "GriffinConfig": "config",
    "Model": "model",
    "PRESETS": "presets",
    "preset": "presets",
    "backend_names": "registry",
    "load_backend": "registry",
    "register_kernel": "registry",
    "use_backend": "registry",
    "Sampling": "sampling",
    "TrainerOptions": "schedules",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that has it."""
    if name == "__version__":
        from griffin_core.checkpoints.manifest import library_version

        value: Any = library_version()
    elif name in _WHERE:
        from importlib import import_module

        value = getattr(import_module(f"griffin_core.{_WHERE[name]}"), name)
    else:
        raise AttributeError(f"module 'griffin_core' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
