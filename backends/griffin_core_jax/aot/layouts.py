"""Copies that the compiler puts around a kernel because a layout does not fit: traffic that nobody wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

import jax

_SHAPE = re.compile(r"(?P<dtype>[a-z]+[0-9]+|pred)\[(?P<dims>[0-9,]*)\](?:\{(?P<layout>[^}]*)\})?")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%(?P<name>\S+) = (?P<shape>\S+) (?P<op>[a-z\-]+)\((?P<operand>%[\w.\-]+)?")
_ASYNC = re.compile(r"^\s*(?:ROOT )?%(?P<name>\S+) = \((?P<shape>.*?)\) (?P<op>copy-start)\((?P<operand>%[\w.\-]+)")
_SPACE = re.compile(r"S\(\d+\)")
MOVES = ("copy", "transpose", "reshape", "bitcast-convert", "copy-start")
"""Instructions that write an array again without computing. XLA writes a reshape that moves nothing as a bitcast."""


@dataclass(frozen=True)
class Copy:
    """One such instruction.

    Attributes:
        op: which of ``MOVES``.
        shape, dtype: what it writes.
        before, after: layouts of what it reads and writes, as the compiler prints them.
    """

    op: str
    shape: tuple[int, ...]
    dtype: str
    before: str
    after: str

    @property
    def elements(self) -> int:
        """Elements written."""
        return prod(self.shape)


def layout_copies(compiled: jax.stages.Compiled, smallest: int = 2**20) -> tuple[Copy, ...]:
    """Copies, transposes, reshapes and bit conversions of large arrays in a compiled program.

    Prefetches into on-chip memory are not counted: they keep the layout and the kernel would read the bytes anyway.

    Args:
        compiled: from ``compile_for``.
        smallest: arrays with fewer elements are passed over.

    Returns:
        Every such instruction, fused ones too, in program order.
    """
    text = compiled.as_text()
    return () if text is None else copies_in(text, smallest)


def copies_in(text: str, smallest: int) -> tuple[Copy, ...]:
    """``layout_copies`` of a program's text."""
    shapes: dict[str, str] = {}
    found = []
    for line in text.splitlines():
        match = _INSTRUCTION.match(line) or _ASYNC.match(line)
        if match is None:
            continue
        written = _SHAPE.match(match["shape"].lstrip("("))
        if written is None:
            continue
        shapes[match["name"]] = written["layout"] or ""
        if match["op"] in MOVES:
            read = shapes.get((match["operand"] or "%")[1:], "")
            copy = _copy(match["op"], written, read)
            if copy.elements >= smallest and not _is_prefetch(copy):
                found.append(copy)
    return tuple(found)


def _copy(op: str, written: re.Match[str], read: str) -> Copy:
    shape = tuple(int(n) for n in written["dims"].split(",") if n)
    return Copy(op, shape, written["dtype"], read, written["layout"] or "")


def _is_prefetch(copy: Copy) -> bool:
    same = _SPACE.sub("", copy.before) == _SPACE.sub("", copy.after)
    return same and copy.op in ("copy", "copy-start") and copy.before != copy.after
