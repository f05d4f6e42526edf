"""Absurd sizes in a process that may not have much memory: ``python -m ...limited SOURCE DIRECTORY`` prints JSON."""

from __future__ import annotations

import json
import resource
import sys
import warnings
from pathlib import Path

from tests.checkpoints.corruption.groups import PAIRS, cases
from tests.checkpoints.corruption.judging import Homes, judged

ROOM = 400_000_000
"""Bytes of addresses beyond those that the process has when the source is built."""
GROUPS = {
    "absurd counts": "",
    "edited header": "",
    "crafted": "",
    "archives": "",
    "edited datasets": "",
    "not files": "terabyte",
}
"""Groups with absurd sizes, and a word of the labels that are meant."""


def main(source: str, place: Path) -> None:
    """Run every case with an absurd size."""
    warnings.simplefilter("error")
    homes = Homes(place)
    home = homes.home(source)
    words = {group: word for group, word in GROUPS.items() if (source, group) in PAIRS}
    labels = {g: {c.label for c in cases(source, g, home, times=1) if word in c.label} for g, word in words.items()}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (_addresses() + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))
    wrong = {}
    for group, own in labels.items():
        wrong |= judged(source, group, homes, place, 1, lambda case, own=own: case.label in own)
    growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(json.dumps({"cases": sum(map(len, labels.values())), "wrong": wrong, "growth": growth}))


def _addresses() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
