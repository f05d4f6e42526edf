"""Files and directories that appear whole or not at all, and OS errors as one clear line."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from griffin_core.errors import CheckpointError

PART = ".part"
"""Suffix of the sibling in which a directory is written before it is renamed into place."""
OLD = ".old"
"""Suffix of the sibling that holds the old content for a moment, where two names cannot be exchanged."""

_SMALL = 1 << 28
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@contextlib.contextmanager
def named_errors(what: str) -> Iterator[None]:
    """Turn an ``OSError`` into a CheckpointError that says what could not be done, to which file, and why."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename is not None and str(error.filename) not in what else ""
        reason = error.strerror or str(error)
        raise CheckpointError(f"cannot {what}{where}: {reason[:1].lower()}{reason[1:]}") from error


def is_plain(name: str) -> bool:
    """Whether a name that a file gives is that of a file below its directory, subdirectories joined by "/"."""
    encodable = name.encode("utf-8", "replace").decode() == name  # lone surrogates are in no name
    return encodable and not ("\\" in name or "\0" in name or {"", ".", ".."} & set(name.split("/")))


def contained(directory: Path, name: str) -> Path:
    """The path of a checkpoint's file.

    A symbolic link may lead elsewhere in the directory, or to where a cache of the Hugging Face Hub keeps content
    (``blobs`` beside ``snapshots``), and to no other place.

    Raises:
        CheckpointError: the name or a link leaves the directory, or it is no regular file.
    """
    path = directory / name
    if not is_plain(name):
        raise CheckpointError(f"{directory} names the file {name!r}, which is no plain file name; nothing was read")
    with named_errors(f"read {path}"):
        real, home = Path(os.path.realpath(path, strict=True)), directory.resolve()
        regular = stat.S_ISREG(path.stat().st_mode)
    if not (real.is_relative_to(home) or real.parent == home.parent.parent / "blobs"):
        raise CheckpointError(f"{path} is a link to {real}, outside its directory; put the file itself there")
    if not regular:
        raise CheckpointError(f"{path} is not a regular file; copy the checkpoint again")
    return path


def reserve(file: IO[bytes], size: int) -> None:
    """Take the disk room of a file now: a mapped file that finds none later ends the process without a word."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def read_small(directory: Path, name: str) -> bytes:
    """The content of one of a checkpoint's small files: JSON, a tokenizer.

    Raises:
        CheckpointError: as in ``contained``, or it is not small.
    """
    path = contained(directory, name)
    with named_errors(f"read {path}"):
        size = path.stat().st_size
        if size > _SMALL:
            raise CheckpointError(f"{path} has {size} bytes; expected at most {_SMALL}; copy it again")
        return path.read_bytes()


def write_file(path: Path, data: bytes) -> None:
    """Write a file and force it to disk; permissions follow the umask."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Force a file's bytes, or a directory's entries (new names, renames), to disk."""
    if os.name == "nt" and path.is_dir():  # it cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(directory: Path, resume: bool = False) -> Iterator[Path]:
    """A sibling to fill, which takes the place of ``directory`` in one step when the block ends well.

    A kill at any moment leaves the old directory or the new one. An error removes the sibling; a kill leaves
    it behind and the next writer removes it.

    Args:
        resume: the block itself clears away what an earlier writer left and it cannot use; an interrupt or an error
            of the file system keeps the sibling for the next one.

    Raises:
        CheckpointError: another process is writing there, or the file system refuses.
    """
    part = directory.with_name(directory.name + PART)
    with named_errors(f"write {directory}"):
        directory.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(exist_ok=True)
    with _locked(part, directory), named_errors(f"write {directory}"):
        try:
            if not resume:
                empty_directory(part)
            yield part
            sync(part)
            _move_into_place(part, directory)
        except BaseException as error:
            if not (resume and _interrupted(error)):
                shutil.rmtree(part, ignore_errors=True)
            raise


def _interrupted(error: BaseException) -> bool:
    """Whether the same work may well succeed later: the user stopped it, or the file system refused."""
    return isinstance(error, KeyboardInterrupt | OSError) or isinstance(error.__cause__, OSError)


@contextlib.contextmanager
def _locked(part: Path, directory: Path) -> Iterator[None]:
    """Hold the sibling for this process; the lock ends with the process, however that ends."""
    if os.name == "nt":
        yield
        return
    import fcntl

    with named_errors(f"write {directory}"):
        handle = os.open(part, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = part.exists() and os.path.samestat(os.fstat(handle), part.stat())
        except BlockingIOError:
            mine = False
        if not mine:
            raise CheckpointError(f"another process is writing {directory}; wait for it, or choose another directory")
        yield
    finally:
        os.close(handle)


def empty_directory(directory: Path, keep: Collection[str] = ()) -> None:
    """Remove everything in a directory but the entries named in ``keep``."""
    for entry in directory.iterdir():
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _move_into_place(part: Path, directory: Path) -> None:
    if not directory.exists():
        part.rename(directory)
    elif _exchange(part, directory):
        shutil.rmtree(part)  # it now holds the old content
    else:
        _swap_in_two_steps(part, directory)
    sync(directory.parent)


def _swap_in_two_steps(part: Path, directory: Path) -> None:
    """Where the system cannot exchange two names: a kill in between leaves the old one under OLD."""
    old = directory.with_name(directory.name + OLD)
    if old.exists():
        shutil.rmtree(old)
    directory.rename(old)
    part.rename(directory)
    shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))
