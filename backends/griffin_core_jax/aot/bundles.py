"""The table of bundle counts: ``python -m griffin_core_jax.aot.bundles [--write] [--chip NAME] [--kernel OP]``.

A figure is bundles per 1024 elements in the loops of one grid step, at [8, 8192, 2560]; beside it stand the cycles
that 1024 elements take at the HBM bandwidth. A kernel whose count is below is limited by memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax.numpy as jnp

from griffin_core_jax.aot.probe import BUNDLES, measure
from griffin_core_jax.aot.programs import SHAPE, Program, programs
from griffin_core_jax.tpu.chips import CHIPS, Chip, chip
from griffin_core_jax.tpu.tiling import TRAFFIC

TABLE = Path(__file__).with_name("bundles.json")
"""The committed counts: {chip: {program: bundles per 1024 elements}}."""
SLACK = 1.03
"""A count may exceed the committed one by 3 %: schedules differ by a few bundles from one libtpu to the next."""

Counts = dict[str, dict[str, float]]


def count(chips: Iterable[Chip], keys: Iterable[str] | None = None) -> Counts:
    """Measure programs on generations, each in a process of its own.

    Args:
        chips: the generations.
        keys: names of the only programs; None is all.

    Returns:
        Bundles per 1024 elements by chip and program.

    Raises:
        BackendError: no libtpu, or a kernel does not compile.
    """
    chosen = None if keys is None else list(keys)
    return {
        row.name: {key: found["inner"] for key, found in measure(BUNDLES, row, SHAPE, chosen).items()} for row in chips
    }


def committed() -> Counts:
    """The counts in the repository."""
    table: Counts = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def slower(found: Mapping[str, Mapping[str, float]], table: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What is wrong with new counts against a table: programs that it lacks, and programs that grew beyond ``SLACK``.

    Returns:
        One sentence for each; empty when all is well.
    """
    said = []
    for name, counts in found.items():
        for key, value in counts.items():
            known = table.get(name, {}).get(key)
            if known is None:
                said.append(f"{key} on {name} is not in the table; run python -m {__name__} --write")
            elif value > known * SLACK:
                said.append(f"{key} on {name} takes {value} bundles per 1024 elements, the table says {known}")
    return said


def floor_cycles(program: Program, row: Chip) -> float:
    """Cycles that 1024 elements of a program take at the HBM bandwidth (assumed clock)."""
    traffic = TRAFFIC[program.kernel.op, program.direction]
    per_element = traffic.stored * jnp.dtype(program.dtype).itemsize + 4 * traffic.wide
    return 1024 * per_element / row.bytes_per_cycle


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog=f"python -m {__name__}", description=__doc__)
    parser.add_argument("--write", action="store_true", help="rewrite the committed table")
    parser.add_argument("--chip", choices=list(CHIPS), action="append", help="only this generation (may be repeated)")
    parser.add_argument("--kernel", help="only programs whose name contains this")
    chosen = parser.parse_args(arguments)
    rows = [chip(name) for name in chosen.chip or CHIPS]
    keys = [p.key for p in programs() if chosen.kernel is None or chosen.kernel in p.key]
    found: Counts = {}
    for row in rows:
        found |= count([row], keys)
        if chosen.write:  # after each generation: all of them take minutes
            write(found)
    show(found)
    return 0


def write(found: Counts) -> None:
    """Put counts into the committed table; programs that are no more leave it."""
    table = committed() if TABLE.exists() else {}
    known = {p.key for p in programs()}
    for name, counts in found.items():
        table[name] = {**table.get(name, {}), **counts}
    ordered = {n: {k: v for k, v in sorted(table[n].items()) if k in known} for n in CHIPS if n in table}
    TABLE.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def show(found: Counts) -> None:
    """Print counts beside the cycles that memory takes."""
    by_key = {p.key: p for p in programs()}
    names = list(found)
    say = sys.stdout.write
    say(f"{'bundles per 1024 elements (HBM cycles)':44s}" + "".join(f"{name:>16s}" for name in names) + "\n")
    for key in next(iter(found.values())):
        cells = (f"{found[n][key]:.2f} ({floor_cycles(by_key[key], CHIPS[n]):.1f})" for n in names)
        say(f"{key:44s}" + "".join(f"{cell:>16s}" for cell in cells) + "\n")


if __name__ == "__main__":
    sys.exit(main())
