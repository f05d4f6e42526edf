"""Every error this library raises on purpose. All are importable from the package root.

The form of a message: what was wrong, the value seen, what was expected, the next step.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONG = 2000
"""Characters of the longest message that quotes a file."""


class GriffinError(Exception):
    """Base of all errors raised on purpose; the command line prints it on one line."""

    exit_code = 2


class ConfigError(GriffinError):
    """A model, trainer or sampling setting is not legal."""


class InputError(GriffinError):
    """Tokens, positions, prompts or files given by the caller are not legal."""


class BackendError(GriffinError):
    """A backend is unknown, cannot be loaded, or lacks a capability."""


class KernelNotSupported(BackendError):
    """A named kernel cannot run this call. Named kernels never fall back."""


class NotEnoughMemory(GriffinError):
    """What was asked for needs more memory than there is; nothing large was allocated."""


class CheckpointError(GriffinError):
    """A checkpoint cannot be read or written.

    Its message is one printable line, whatever the file holds that it quotes.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class CheckpointMismatch(CheckpointError):
    """Names, shapes or dtypes in a checkpoint differ from what the config needs."""


class StateMismatch(CheckpointError):
    """A saved decode state belongs to another config or other weights."""


class ConformanceError(GriffinError):
    """A kernel or backend does not conform to the reference."""

    exit_code = 1


class TrainingError(GriffinError):
    """Training cannot go on: the loss or its gradient is NaN or infinite."""

    exit_code = 1


class RandomWeightsWarning(UserWarning):
    """Text is generated from weights that were never trained."""


def one_line(text: str) -> str:
    """The text without line breaks or control characters, which are escaped, and without the middle if it is long."""
    if not _cut(text).isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in _cut(text))
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 300]} ... {text[-290:]}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for error messages: the closest known name, or all of them.

    Returns:
        ``"did you mean 'x'?"`` when one is close, else ``"known: a, b, c"``.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(names)
