"""The engine: which framework Keras computes with. Chosen once, before Keras is imported.

Keras reads ``KERAS_BACKEND`` when it is imported and never again. Importing this module settles the choice: the
variable's value; without one what ``keras.json`` names, if that is installed; else the first of ``ENGINES`` that is.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import sys
from pathlib import Path
from types import ModuleType

from griffin_core import env
from griffin_core.errors import BackendError

log = logging.getLogger("griffin_core")

ENGINES = {
    "jax": "griffin_core_keras.engines.on_jax",
    "torch": "griffin_core_keras.engines.on_torch",
    "tensorflow": "griffin_core_keras.engines.on_tensorflow",
}
"""Modules with the operations that the layers call, by engine, preferred first."""


def choose() -> str:
    """The engine's name; the variable is set for Keras where it is not.

    Raises:
        BackendError: the engine is not installed, is not one of ``ENGINES``, or Keras runs on another already.
        ConfigError: ``KERAS_BACKEND`` names no engine.
    """
    wanted = env.read("KERAS_BACKEND")
    if "keras" in sys.modules:
        return _running(wanted)
    chosen = wanted or _preferred()
    if importlib.util.find_spec(chosen) is None:
        raise BackendError(
            f"KERAS_BACKEND={chosen}, but {chosen} is not installed; pip install {chosen}, or set KERAS_BACKEND to "
            f"one of {', '.join(_installed()) or 'jax, torch, tensorflow once it is installed'}"
        )
    if wanted is None:
        log.info("keras: engine %s; KERAS_BACKEND chooses another", chosen)
        env.set_keras_backend(chosen)
    return chosen


def require_unchanged() -> None:
    """Refuse to go on where ``KERAS_BACKEND`` was changed after Keras had been imported.

    Raises:
        BackendError: naming both engines.
    """
    _running(env.read("KERAS_BACKEND"))


def _running(wanted: str | None) -> str:
    """The engine of a Keras that is imported."""
    found: str = sys.modules["keras"].config.backend()
    if found not in ENGINES:
        raise BackendError(f"Keras runs on {found!r}; expected {', '.join(ENGINES)}: set KERAS_BACKEND, start again")
    if wanted not in (None, found):
        raise BackendError(
            f"KERAS_BACKEND={wanted} was set after Keras had been imported, and Keras runs on {found}; "
            "set it before the first import, in a new process"
        )
    return found


def _preferred() -> str:
    """The engine of ``keras.json`` where it is installed, else the first that is."""
    installed = _installed()
    if not installed:
        raise BackendError("Keras needs an engine; pip install jax, torch or tensorflow")
    return named if (named := _configured()) in installed else installed[0]


def _installed() -> list[str]:
    return [name for name in ENGINES if importlib.util.find_spec(name) is not None]


def _configured() -> str | None:
    """The backend that Keras's own settings name; they are Keras's business, so damage is not reported here."""
    home = env.read("KERAS_HOME")
    path = (Path(home) if home else Path.home() / ".keras") / "keras.json"
    try:
        found = json.loads(path.read_text()).get("backend")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


NAME = choose()
engine: ModuleType = importlib.import_module(ENGINES[NAME])
"""Operations on this engine's tensors: those of ``griffin_core.protocol``, and the few more that the layers need."""
