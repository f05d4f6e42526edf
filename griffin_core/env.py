"""Every environment variable the library reads. Nothing else touches ``os.environ``.

Variables are read when they are needed, never at import, and parsed strictly.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from griffin_core.errors import ConfigError, nearest

PREFIX = "GRIFFIN_"


@dataclass(frozen=True)
class Variable:
    """One environment variable: its name, legal values (empty: any), default and meaning."""

    name: str
    values: tuple[str, ...]
    default: str | None
    meaning: str


VARIABLES: tuple[Variable, ...] = (
    Variable("GRIFFIN_BACKEND", (), None, "backend to use; unset: the first installed of torch, jax, keras, numpy"),
    Variable(
        "GRIFFIN_KERNEL", (), "auto", "kernel to use for the recurrent operations; a named kernel never falls back"
    ),
    Variable("GRIFFIN_TORCH_DEVICE", (), "cpu", "where the torch backend makes its arrays: cpu, cuda, cuda:1"),
    Variable(
        "KERAS_BACKEND",
        ("jax", "torch", "tensorflow"),
        None,
        "Keras's own: the engine of the keras backend; unset: that of keras.json, or the first installed of these",
    ),
    Variable("KERAS_HOME", (), None, "Keras's own: where keras.json is; unset: ~/.keras"),
    Variable(
        "GRIFFIN_TEST_BACKENDS", (), None, "comma list of the backends that the tests judge; unset: all that load"
    ),
    Variable("GRIFFIN_TEST_PROFILE", ("quick", "ci", "thorough"), "quick", "how many cases the property tests draw"),
)
_BY_NAME = {variable.name: variable for variable in VARIABLES}


def read(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """The value of one variable, or its default when it is unset or empty.

    Raises:
        ConfigError: the value is not one of the variable's legal values.
    """
    environ = os.environ if environ is None else environ
    variable = _BY_NAME[name]
    value = environ.get(name, "").strip() or variable.default
    if value is not None and variable.values and value not in variable.values:
        raise ConfigError(f"{name}={value!r} is not understood; {nearest(value, variable.values)}")
    return value


def set_keras_backend(engine: str) -> None:
    """Tell Keras its engine, where the user did not; it reads the variable when it is imported."""
    os.environ["KERAS_BACKEND"] = engine


def warn_unknown(environ: Mapping[str, str] | None = None) -> None:
    """Warn about variables that start with ``GRIFFIN_`` and are not in the table (typing slips)."""
    environ = os.environ if environ is None else environ
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in _BY_NAME:
            warnings.warn(f"{name} is set but not read by griffin-core; {nearest(name, _BY_NAME)}", stacklevel=2)


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and ``extra``, for a process to be started."""
    return {**os.environ, **extra}


@contextlib.contextmanager
def hidden(name: str) -> Iterator[None]:
    """Unset a variable inside the block: a library loaded there does not see it, and it stands again afterwards."""
    kept = os.environ.pop(name, None)
    try:
        yield
    finally:
        if kept is not None:
            os.environ[name] = kept
