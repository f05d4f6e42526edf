"""What the verbs print: text and tables for people on stdout, or one JSON document and the rest on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

PLAIN_WIDTH = 120
"""Columns of a table that goes to a file or a pipe."""


class Output:
    """Where one command's words go.

    Args:
        json: stdout carries one JSON document (``result``) and nothing else; words for people go to stderr.
    """

    def __init__(self, json: bool = False) -> None:
        self.json = json

    @property
    def stream(self) -> TextIO:
        """The stream for people: stdout, or stderr when stdout carries JSON."""
        return sys.stderr if self.json else sys.stdout

    def say(self, text: str = "", end: str = "\n") -> None:
        """Print plain text, unstyled and at once (streamed pieces of a sample use ``end=""``)."""
        self.stream.write(text + end)
        self.stream.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
        """Print a table; columns whose cells are all numbers are set to the right."""
        from rich import box
        from rich.table import Table

        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for index, name in enumerate(columns):
            numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_escape(cell_text(cell)) for cell in row))
        console(self.stream).print(table)

    def result(self, payload: Mapping[str, Any]) -> None:
        """The command's machine-readable outcome; printed only with ``--json``."""
        if self.json:
            sys.stdout.write(to_json(payload) + "\n")
            sys.stdout.flush()


def console(stream: TextIO | None = None) -> Console:
    """A rich console on a stream (stderr when None); wide and without colour when it is not a terminal."""
    from rich.console import Console

    target = sys.stderr if stream is None else stream
    width = None if target.isatty() else PLAIN_WIDTH
    return Console(file=target, highlight=False, width=width, soft_wrap=False)


def progress(*columns: Any) -> Progress:
    """A rich progress display on stderr that shows nothing when stderr is not a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    chosen = columns or (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    target = console()
    return Progress(*chosen, console=target, disable=not target.is_terminal, transient=True)


def to_json(payload: Mapping[str, Any]) -> str:
    """Strict JSON text: NumPy values become Python's, paths become text, NaN and infinity become null."""
    return json.dumps(_plain(payload), indent=2, allow_nan=False)


def cell_text(value: object) -> str:
    """One table cell as text: floats to four significant digits, large integers with separators."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
