"""Things that are no files of the checkpoint: links out of it, pipes, sockets, directories, names with ``..``."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.checkpoints.corruption.cases import Case, Ground
from tests.checkpoints.corruption.sources import MODEL

OUTSIDE = "outside"
"""File beside the checkpoint to which links lead."""


def _outside(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == MODEL).with_name(OUTSIDE)


def _link_out(path: Path) -> None:
    outside = path.rename(_outside(path))
    path.symlink_to(os.path.relpath(outside, path.parent))


def _link_out_absolutely(path: Path) -> None:
    outside = path.rename(_outside(path))
    path.symlink_to(outside.resolve())


def _link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


def _link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _link_to_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _terabyte(path: Path) -> None:
    """Zeros, of which none is on disk."""
    os.truncate(path, 2**40)


def _socket(path: Path) -> None:
    """Bound under a short name: a socket's path is limited."""
    path.unlink()
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name[:60])
    finally:
        os.chdir(before)
    if path.name != path.name[:60]:
        (path.parent / path.name[:60]).rename(path)


def _linked_home(home: Path) -> None:
    """A directory of the right files that is itself elsewhere is what the user named."""
    shutil.move(home / MODEL, home / OUTSIDE)
    (home / MODEL).symlink_to(OUTSIDE)


_KINDS: dict[str, Callable[[Path], None]] = {
    "a link out": _link_out,
    "an absolute link out": _link_out_absolutely,
    "a link to nothing": _link_to_nothing,
    "a link to itself": _link_to_itself,
    "a link to a device": _link_to_device,
    "a directory": _directory,
    "a pipe": _pipe,
    "a socket": _socket,
    "a terabyte": _terabyte,
}


def not_files(ground: Ground) -> Iterator[Case]:
    """Every file of the directory in turn as something else; what no manifest lists may be missing."""
    for path in ground.source.all_files(ground.home):
        for label, change in _KINDS.items():
            absent = label in ("a link to nothing", "a link to itself", "a directory", "a pipe", "a socket")
            optional = path.name.startswith("tokenizer") and not ground.source.hashed
            given = ground.source.entry != MODEL and "out" in label
            damage = _on(path.relative_to(ground.home), change)
            yield Case(f"{path.name} is {label}", damage, path.name, strict=not (given or (optional and absent)))
    yield Case("the directory is a link", _linked_home, MODEL, strict=False)


def _on(where: Path, change: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda home: change(home / where)
