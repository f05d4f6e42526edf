"""Collectives in a compiled program, read from its text: how many, over which axes of the mesh, and in which loop."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import jax
import numpy as np
from jax.sharding import Mesh

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all", "collective-broadcast")

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (?P<shape>.+?) (?P<op>[a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(
    r"(?P<how>body|calls|to_apply|called_computations|branch_computations)=\{?(?P<names>%[^}\s,]+(?:, ?%[^}\s,]+)*)"
)
_GROUPS = re.compile(r"replica_groups=(?P<groups>\{\{.*?\}\}|\[[^ ]*\]<=\[[0-9,]*\](?:T\([0-9,]*\))?)")
_PAIRS = re.compile(r"source_target_pairs=\{(?P<pairs>.*?\})\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(?P<n>\d+)"\}')
_CONDITION = re.compile(r"condition=%?(?P<name>[\w.\-]+)")
_CONSTANT = re.compile(r" = s32\[\]\S* constant\((?P<n>\d+)\)")
_CHAIN = re.compile(r"channel_id=(?P<channel>\d+).*chain_id=\"(?P<chain>\d+)\"")
_ARRAY = re.compile(r"(?P<dtype>pred|[a-z]+[0-9]+)\[(?P<dims>[0-9,]*)\]")
_BITS = re.compile(r"\d+")
_FUSED_SCATTER = "all-reduce-scatter"
"""Computations of which each device keeps its piece alone: the compiler writes them as a sum and a slice."""

Groups = frozenset[frozenset[int]]
Loops = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Collective:
    """One exchange between devices.

    Attributes:
        kind: of ``KINDS``.
        axes: the mesh axes whose devices exchange; empty where they are no product of axes.
        elements: of its largest result.
        bytes: of its results.
        backward: whether it belongs to a gradient.
        loops: the loops around it, outermost first, as (name, turns); turns is 0 where the compiler does not say.
    """

    kind: str
    axes: tuple[str, ...]
    elements: int
    bytes: int
    backward: bool
    loops: Loops


def collectives(compiled: jax.stages.Compiled, mesh: Mesh) -> tuple[Collective, ...] | None:
    """Every collective of a program for the devices of ``mesh``, each once however often its loop turns.

    None where the compiler cannot write its own program down: libtpu 0.0.51 fails at some exchanges of v5p.
    """
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError:
        return None
    return None if text is None else tuple(collectives_in(text, mesh))


def collectives_in(text: str, mesh: Mesh) -> Iterator[Collective]:
    """``collectives`` of a program's text."""
    bodies, entry = _computations(text)
    known = _axes_by_groups(mesh)

    pieces: set[tuple[str, str]] = set()

    def walk(name: str, loops: Loops, backward: bool) -> Iterator[Collective]:
        for line in bodies.get(name, ()):
            match = _INSTRUCTION.match(line)
            if match is None or match["op"].endswith(("-done", "-update")):
                continue
            back = backward or "transpose(" in line
            kind = match["op"].removesuffix("-start")
            if kind == "all-reduce" and name.startswith(_FUSED_SCATTER):
                kind = "reduce-scatter"
            if kind in KINDS:
                chain = _CHAIN.search(line)  # one exchange that is spread over several instructions
                piece = (loops[-1][0] if loops else "", chain[0] if chain else "")
                if chain is None or piece not in pieces:
                    pieces.add(piece)
                    yield _read(kind, match["shape"], line, known, back, loops)
                continue  # what it applies is an addition
            for called in _CALLED.finditer(line):
                looped = called["how"] == "body"
                inside = (*loops, (called["names"].lstrip("%"), _turns(line, bodies))) if looped else loops
                for other in called["names"].split(","):
                    yield from walk(other.strip().lstrip("%"), inside, back and bool(inside))

    return walk(entry, (), False)


def _turns(line: str, bodies: dict[str, list[str]]) -> int:
    """How often a loop turns: as stated, or the one number that its counter is compared with; 0 is unknown."""
    stated = _TRIPS.search(line)
    if stated is not None:
        return int(stated["n"])
    condition = _CONDITION.search(line)
    found = _CONSTANT.findall("\n".join(bodies.get(condition["name"], ()))) if condition else []
    return int(found[0]) if len(found) == 1 else 0


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines of each computation by name, and the name of the first to run."""
    bodies: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head is not None:
            current = bodies.setdefault(head["name"], [])
            entry = head["name"] if head["entry"] else entry
        elif line.rstrip() == "}":  # text inside an instruction may start with one
            current = None
        elif current is not None:
            current.append(line)
    return bodies, entry


def _read(
    kind: str, shape: str, line: str, known: dict[Groups, tuple[str, ...]], backward: bool, loops: Loops
) -> Collective:
    arrays = [_size(match) for match in _ARRAY.finditer(shape)]
    if "-start(" in line and len(arrays) > 1:
        arrays = arrays[len(arrays) // 2 :] if kind != "all-reduce" else arrays  # a pair: operands, then results
    return Collective(
        kind=kind,
        axes=known.get(_groups(line), ()),
        elements=max((count for count, _ in arrays), default=0),
        bytes=sum(size for _, size in arrays),
        backward=backward,
        loops=loops,
    )


def _size(array: re.Match[str]) -> tuple[int, int]:
    """(elements, bytes)."""
    count = prod(int(n) for n in array["dims"].split(",") if n)
    bits = _BITS.search(array["dtype"])
    return count, count * (int(bits[0]) if bits else 8) // 8


def _groups(line: str) -> Groups:
    """Which devices (by place in the mesh) exchange with each other."""
    match = _GROUPS.search(line)
    if match is None:
        pairs = _PAIRS.search(line)
        return _joined(pairs["pairs"]) if pairs else frozenset()
    text = match["groups"]
    if text.startswith("{{"):
        return frozenset(frozenset(map(int, group.split(","))) for group in text[2:-2].split("},{"))
    form, _, rest = text.partition("<=")
    source, _, order = rest.partition("T")
    numbers = np.arange(prod(_numbers(source))).reshape(_numbers(source))
    numbers = numbers.transpose(_numbers(order)) if order else numbers
    return frozenset(frozenset(group) for group in numbers.reshape(_numbers(form)).tolist())


def _joined(pairs: str) -> Groups:
    """Chains of senders and receivers as groups."""
    groups: list[set[int]] = []
    for pair in re.findall(r"\{(\d+),(\d+)\}", pairs + "}"):
        ends = {int(pair[0]), int(pair[1])}
        touching = [group for group in groups if group & ends]
        groups = [group for group in groups if not group & ends] + [ends.union(*touching)]
    return frozenset(map(frozenset, groups))


def _numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def _axes_by_groups(mesh: Mesh) -> dict[Groups, tuple[str, ...]]:
    """The axes that each grouping of the mesh's devices is made of; axes of one device are left out."""
    sizes = [mesh.shape[name] for name in mesh.axis_names]
    grid = np.arange(prod(sizes)).reshape(sizes)
    wide = [i for i, size in enumerate(sizes) if size > 1]
    found: dict[Groups, tuple[str, ...]] = {}
    for length in range(1, len(wide) + 1):
        for chosen in itertools.combinations(wide, length):
            kept = [i for i in range(len(sizes)) if i not in chosen]
            groups = grid.transpose(*kept, *chosen).reshape(-1, prod(sizes[i] for i in chosen))
            names = tuple(str(mesh.axis_names[i]) for i in chosen)
            found[frozenset(map(frozenset, groups.tolist()))] = names
    return found
