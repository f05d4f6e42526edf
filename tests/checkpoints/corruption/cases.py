"""One corruption, and what running it through the command must look like."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import stat
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import NamedTuple

from griffin_core.checkpoints.files import PART
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.cli import main
from griffin_core.errors import CheckpointError
from tests.checkpoints.corruption.sources import Source

ERROR = "griffin: error: "
SECONDS = 30.0
"""A case that takes longer hangs; it takes some hundredths of a second on an idle machine."""
_HEAD = 1 << 24
RAN = "ran"
"""File that the code in a hostile pickle makes."""


@dataclass(frozen=True)
class Case:
    """One corruption.

    Attributes:
        label: what is done, for messages.
        damage: does it, to a home.
        file: name of the damaged file, which the error must give.
        tensors: names of which the error must give one; none where no tensor is concerned.
        strict: it must be refused; else an exact conversion will do as well.
        legal: the text that is left is a legal one, so that the config may be another.
        options: more arguments of the command.
    """

    label: str
    damage: Callable[[Path], None]
    file: str
    tensors: tuple[str, ...] = ()
    strict: bool = True
    legal: bool = False
    options: tuple[str, ...] = ()


class Ground(NamedTuple):
    """Where a generator of cases works: the undamaged home of a source, its own seed, how many to draw of each."""

    source: Source
    home: Path
    random: Random
    few: int

    def some(self, things: Sequence[object], most: int | None = None) -> list:
        """All things, or as many as are drawn, in order."""
        count = min(len(things), self.few if most is None else most)
        return [things[i] for i in sorted(self.random.sample(range(len(things)), count))]


class Facts(NamedTuple):
    """What an undamaged source holds: digest of the weights and of the config."""

    weights: str | None
    config: str


class Hangs(BaseException):
    """Not an Exception: nothing on the way may take it for an error of its own."""


def facts(source: Source, home: Path) -> Facts:
    """Those of a home."""
    options = dict(zip(source.options[::2], source.options[1::2], strict=True))
    config = options.get("--config", "").replace("{home}", str(home)) or None
    found = open_checkpoint(home / source.entry, config=config)
    return Facts(found.digest, found.config.digest())


def attempt(source: Source, case: Case, pristine: Path, home: Path, known: Facts) -> bool:
    """Run a case in a fresh home: True when it is refused as it should be, False when the conversion is exact.

    Raises:
        AssertionError: it is neither.
    """
    shutil.copytree(pristine, home, symlinks=True)
    case.damage(home)
    before = snapshot(home)
    destination = home.with_name(home.name + "-out") / "new"
    code, out, err = run([*source.command(home, destination), *case.options])
    assert not (home / RAN).exists(), "code of the file was run"
    assert snapshot(home) == before, "the source was changed"
    if code == 0:
        assert not case.strict, f"was converted: {out}"
        got = open_checkpoint(destination)
        assert got.digest == known.weights, "other weights came out"
        assert case.legal or got.config.digest() == known.config, "another config came out"
        return False
    judge(case, code, out, err)
    refuse_remains(destination)
    return True


def judge(case: Case, code: int, out: str, err: str) -> None:
    """One line on stderr that names what is damaged, exit code 1, nothing on stdout."""
    assert code == 1, f"exit code {code}: {err}"
    assert out == "", f"stdout: {out!r}"
    assert err.startswith(ERROR), err
    assert err.count("\n") == 1, err
    assert err.endswith("\n"), err
    assert err.rstrip("\n").isprintable(), err
    assert len(err) < 3000, f"{len(err)} characters"
    assert case.file in err, f"{case.file} is not named: {err}"
    assert not case.tensors or any(name in err for name in case.tensors), f"none of {case.tensors} is named: {err}"


def refuse_remains(destination: Path) -> None:
    """What may be left at the destination can not be opened."""
    for left in (destination, destination.with_name(destination.name + PART)):
        if left.exists():
            with contextlib.suppress(CheckpointError):
                open_checkpoint(left)
                raise AssertionError(f"{left.name} passes for a checkpoint")


def run(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with _deadline(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    except Hangs:
        raise AssertionError(f"takes more than {SECONDS} s") from None
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise AssertionError(f"{type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})") from None
    return code, out.getvalue(), err.getvalue()


def snapshot(home: Path) -> dict[str, str]:
    """Kind and content of everything in a directory."""
    found = {}
    for path in sorted(home.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            text = str(path.readlink())
        elif stat.S_ISREG(mode):
            with path.open("rb") as file:
                text = f"{path.stat().st_size} {hashlib.sha256(file.read(_HEAD)).hexdigest()}"
        else:
            text = ""
        found[os.fspath(path.relative_to(home))] = f"{stat.S_IFMT(mode):o} {text}"
    return found


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    def strike(number: int, frame: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
