"""The ``griffin`` command. Verbs are imported when they are called, so help loads no framework."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from griffin_core import env
from griffin_core.errors import GriffinError, nearest

if TYPE_CHECKING:
    from cyclopts import App
    from cyclopts.exceptions import CycloptsError

OK, FAILED, USAGE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141
"""Exit codes: all well, a check failed, wrong use, Ctrl-C, the reader of stdout went away."""

VERBS: dict[str, tuple[str, str]] = {
    "info": ("info:info", "Show backends, devices and kernels, or a checkpoint, or a preset."),
    "demo": ("demo:demo", "Train a small model on real text, generate from it, verify it; write a report."),
    "train": ("train:train", "Train a model, or fine-tune one."),
    "generate": ("generate:generate", "Generate text; save and resume the state."),
    "eval": ("eval:evaluate", "Score text: bits per byte, perplexity, loss by position."),
    "convert": ("convert:convert", "Convert a checkpoint."),
    "verify": ("verify:verify", "Judge a backend, a kernel or your own function against the reference."),
    "bench": ("bench:bench", "Time scans, prefill, decoding and training beside bare matrix products."),
}
"""Verb -> (where it is, one line of help)."""

_SECTIONS = re.compile(r"^(?:Args|Returns|Raises):|^Parameters\n-+", re.MULTILINE)
_FLAGS = ("--help", "-h", "--version")

_EPILOGUE = (
    "Every verb takes --json (one JSON document on stdout, progress on stderr), -v (say which backend and "
    "kernel run) and --help. Exit codes: 0 all well, 1 a check failed, 2 wrong use."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one ``griffin`` command.

    Args:
        argv: the arguments after the program's name; None takes those of the process.

    Returns:
        The exit code. Errors raised on purpose become one line on stderr; any other exception passes.
    """
    words, verbose = _take_verbose(list(sys.argv[1:] if argv is None else argv))
    with _plain_warnings(), _info_logging(verbose):
        try:
            env.warn_unknown()
            code = _run(words)
            sys.stdout.flush()
        except GriffinError as error:
            return _complain(str(error), error.exit_code)
        except KeyboardInterrupt:
            return _complain("interrupted", INTERRUPTED)
        except BrokenPipeError:
            return _close_stdout()
    return code


def build_app(verb: str | None = None) -> App:
    """The command tree, verbs not yet imported; the called verb's help is its function's own docstring."""
    from cyclopts import App, Parameter

    app = App(
        name="griffin",
        help="Griffin-family models (Hawk, Griffin, RecurrentGemma) on proven backends.",
        help_epilogue=_EPILOGUE,
        help_format="plaintext",
        version=_version,
        default_parameter=Parameter(negative=(), show_default=_show_default),  # no --no-flag
        suppress_keyboard_interrupt=False,
    )
    for order, (name, (where, line)) in enumerate(VERBS.items()):
        text = _long_help(where) if name == verb else line
        app.command(f"{__name__}.{where}", name=name, help=text, sort_key=order)
    return app


def _long_help(where: str) -> str:
    """What the verb's docstring says before its arguments, each paragraph as one line: terminals wrap it."""
    module, _, name = where.partition(":")
    text = inspect.getdoc(getattr(importlib.import_module(f"{__name__}.{module}"), name)) or ""
    head = _SECTIONS.split(text, maxsplit=1)[0]
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in head.strip().split("\n\n"))


def _show_default(value: object) -> str | None:
    """Help shows the default of options that have one (flags are off unless given)."""
    return None if value is None or value is False or value == "" else str(value)


def _run(words: list[str]) -> int:
    from cyclopts.exceptions import CycloptsError

    if words and words[0] not in (*VERBS, *_FLAGS):
        kind, known = ("option", _FLAGS) if words[0].startswith("-") else ("verb", tuple(VERBS))
        return _complain(f"unknown {kind} {words[0]!r}; {nearest(words[0], known)}", USAGE)
    app = build_app(words[0] if words else None)
    try:
        code = app(words, result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _complain(_usage_text(error, words), USAGE)
    return code if isinstance(code, int) else OK


def _usage_text(error: CycloptsError, words: list[str]) -> str:
    error.verbose = False
    text = " ".join(str(error).split()).rstrip(".")
    verb = words[0] if words and words[0] in VERBS else None
    return f"{text}; see griffin {verb + ' ' if verb else ''}--help"


def _take_verbose(words: list[str]) -> tuple[list[str], bool]:
    """The words without -v and --verbose, and whether they were there (nothing after ``--`` is touched)."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word not in ("-v", "--verbose")]
    return kept + words[end:], len(kept) < end


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"griffin: error: {' '.join(message.split())}\n")
    return code


def _close_stdout() -> int:
    """The reader left. Point stdout at nothing, so that the interpreter's last flush does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _version() -> str:
    from importlib.metadata import version

    return version("griffin-core")


@contextlib.contextmanager
def _info_logging(verbose: bool) -> Iterator[None]:
    """Send the library's INFO lines to stderr while a verbose command runs."""
    log = logging.getLogger("griffin_core")
    before = log.level
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("griffin: %(message)s"))
    if verbose:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings as one line of their text, without source line and path."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        (file or sys.stderr).write(f"griffin: warning: {' '.join(str(message).split())}\n")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
