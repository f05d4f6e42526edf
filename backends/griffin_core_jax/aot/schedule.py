"""Read the compiler's final schedule: how many instruction bundles a kernel issues.

A bundle issues in at least one cycle, so bundles per 1024 elements (one float32 register) bound a kernel's compute
time on any generation. The dump's format is undocumented; what is read here is little, and checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from griffin_core.errors import BackendError

_BUNDLE = re.compile(r"^\s*(?:0x[0-9a-f]+|0)\s+(?P<label>[A-Z]{2})?\s*:\s*(?P<depth>[> ]*)\{(?P<rest>.*)")
_EXIT = re.compile(r"%\w+ = scmp\.ge\.s32\.totalorder [^,]+, (?P<trips>\d+) /\* loop exit test \*/")


@dataclass(frozen=True)
class Loop:
    """One loop of a schedule.

    Attributes:
        depth: 1 is the loop over grid steps.
        bundles: of its own body, inner loops left out.
        trips: how often it turns in one turn of the loop around it; 0 where the dump does not say: such loops copy the
            ragged ends of small blocks, and are counted once.
        runs: how often its body runs in one grid step (1 at depth 1).
    """

    depth: int
    bundles: int
    trips: int
    runs: int


@dataclass
class _Open:
    depth: int
    bundles: int = 0
    trips: int = 0


@dataclass(frozen=True)
class Schedule:
    """The loops of one kernel.

    Attributes:
        loops: in program order.
    """

    loops: tuple[Loop, ...]

    @property
    def inner(self) -> int:
        """Bundles that the loops inside one grid step issue (both sides of a condition are counted)."""
        return sum(loop.bundles * loop.runs for loop in self.loops if loop.depth > 1)

    @property
    def step(self) -> int:
        """Bundles of one grid step: ``inner`` and the pipeline's own."""
        return self.inner + sum(loop.bundles for loop in self.loops if loop.depth == 1)


def read_schedule(text: str) -> Schedule:
    """The loops in the text of a ``final_bundles`` dump.

    Raises:
        BackendError: the text has no loop inside a grid step whose turns are known: the format has changed.
    """
    stack: list[_Open] = []
    order: list[tuple[_Open, tuple[_Open, ...]]] = []
    for line in text.splitlines():
        exit_test = _EXIT.search(line)
        match = _BUNDLE.match(line)
        if match is None:
            continue
        depth = match["depth"].count(">")
        if match["label"] == "LB":
            stack = [loop for loop in stack if loop.depth < depth]
            stack.append(_Open(depth))
            order.append((stack[-1], tuple(stack)))
        owner = next((loop for loop in reversed(stack) if loop.depth <= depth), None)
        if owner is not None and depth:
            owner.bundles += 1
            if exit_test is not None and not owner.trips:
                owner.trips = int(exit_test["trips"])
    if not any(loop.depth > 1 and loop.trips for loop, _ in order):
        raise BackendError("the compiler's bundle dump is not understood; it was read with libtpu 0.0.51")
    return Schedule(tuple(Loop(o.depth, o.bundles, o.trips, _runs(chain)) for o, chain in order))


def _runs(chain: tuple[_Open, ...]) -> int:
    runs = 1
    for loop in chain:
        runs *= (loop.trips or 1) if loop.depth > 1 else 1
    return runs
