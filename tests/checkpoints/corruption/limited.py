"""Absurd sizes in a process that may not have much memory: ``python -m ...limited SOURCE DIRECTORY`` prints JSON."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import warnings
from pathlib import Path

from tests.checkpoints.corruption.cases import attempt, facts
from tests.checkpoints.corruption.groups import PAIRS, cases
from tests.checkpoints.corruption.sources import SOURCES

ROOM = 400_000_000
"""Bytes of addresses beyond those that the process has after a whole conversion."""
_GROUPS = ("absurd counts", "edited header", "crafted", "archives", "not files")


def main(source: str, place: Path) -> None:
    """Run every case of the groups with absurd sizes."""
    warnings.simplefilter("error")
    home = place / "pristine"
    home.mkdir()
    row = SOURCES[source]
    row.build(home)
    known = facts(row, home)
    found = [
        case for name, group in PAIRS if name == source and group in _GROUPS for case in cases(name, group, home, 1)
    ]
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (_addresses() + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))
    wrong = {}
    for case in found:
        try:
            attempt(row, case, home, place / "case", known)
        except (AssertionError, MemoryError) as error:
            wrong[case.label] = f"{type(error).__name__}: {error}"
        for left in (place / "case", place / "case-out"):
            shutil.rmtree(left, ignore_errors=True)
    growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
    print(json.dumps({"cases": len(found), "wrong": wrong, "growth": growth}))


def _addresses() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
