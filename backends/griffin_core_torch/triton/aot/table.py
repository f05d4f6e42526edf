"""The table of counts: ``python -m griffin_core_torch.triton.aot.table [--write] [--target NAME] [--program PART]``."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from griffin_core_torch.triton.aot.compile import TARGETS, Build, build
from griffin_core_torch.triton.aot.programs import Program, programs
from griffin_core_torch.triton.launch import OPTIONS
from griffin_core_torch.triton.loading import device

TABLE = Path(__file__).with_name("counts.json")
"""The committed counts: {target: {program: {registers, spills, instructions, special, memory, source}}}."""
_SOURCE = "source"
SLACK = 1.05
"""Instructions may exceed the committed ones by 5 %: they differ a little between versions of Triton."""

Counts = dict[str, dict[str, Build]]


def count(targets: Iterable[str], chosen: Iterable[Program]) -> Counts:
    """Compile programs for targets."""
    found = list(chosen)
    return {target: {program.key: build(program, target) for program in found} for target in targets}


def committed() -> Counts:
    """The counts in the repository."""
    return {
        target: {
            key: Build(**{name: value for name, value in row.items() if name != _SOURCE}) for key, row in rows.items()
        }
        for target, rows in _read().items()
    }


def stale() -> list[str]:
    """Programs whose counts are of other sources than today's, by target; rewriting their rows makes it empty."""
    today = {program.key: source(program) for program in programs()}
    return [
        f"{key} for {target}"
        for target, rows in _read().items()
        for key, row in rows.items()
        if row.get(_SOURCE) != today.get(key)
    ]


def source(program: Program) -> str:
    """A hash of everything that decides what is compiled: the kernel, what it calls, its constants, Triton itself."""
    import triton

    kernel = getattr(device(program.module), program.kernel)
    constants = sorted((name, str(value)) for name, value in program.constants.items())
    form = [program.dtype, program.warps, program.elements, constants, sorted(map(str, OPTIONS.items()))]
    return hashlib.sha256(json.dumps([kernel.cache_key, triton.__version__, form]).encode()).hexdigest()[:16]


def _read() -> dict[str, dict[str, dict[str, Any]]]:
    return dict(json.loads(TABLE.read_text(encoding="utf-8")))


def worse(found: Mapping[str, Mapping[str, Build]], table: Mapping[str, Mapping[str, Build]]) -> list[str]:
    """One sentence for each program that the table lacks, that spills more or whose instructions grew."""
    said = []
    for target, rows in found.items():
        for key, row in rows.items():
            known = table.get(target, {}).get(key)
            if known is None:
                said.append(f"{key} for {target} is not in the table; run python -m {__name__} --write")
                continue
            for name, slack in (("spills", 1.0), ("special", SLACK), ("instructions", SLACK)):
                value, limit = getattr(row, name), getattr(known, name)
                if value > limit * slack:
                    said.append(f"{key} for {target}: {name} {value}, the table says {limit}")
    return said


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog=f"python -m {__name__}", description=__doc__)
    parser.add_argument("--write", action="store_true", help="rewrite the committed table")
    parser.add_argument("--target", choices=list(TARGETS), action="append", help="only this GPU (may be repeated)")
    parser.add_argument("--program", default="", help="only programs whose name contains this")
    given = parser.parse_args(arguments)
    found = {}
    for target in given.target or TARGETS:
        for program in (p for p in programs() if given.program in p.key):
            row = build(program, target)
            found.setdefault(target, {})[program.key] = row
            sys.stdout.write(line(target, program.key, row) + "\n")
            sys.stdout.flush()
    if given.write:
        write(found)
    return 0


def line(target: str, key: str, row: Build) -> str:
    """One row of the printed table."""
    return (
        f"{target:8s} {key:44s} {row.instructions:7.2f} instructions {row.special:6.2f} special per element, "
        f"{row.registers} registers, {row.spills} bytes spilled"
    )


def write(found: Counts) -> None:
    """Put counts into the committed table; programs that are no more leave it."""
    table = _read() if TABLE.exists() else {}
    known = {program.key: program for program in programs()}
    rows: dict[str, dict[str, Any]] = {}
    for target in TARGETS:
        fresh = {
            key: {**dataclasses.asdict(row), _SOURCE: source(known[key])} for key, row in found.get(target, {}).items()
        }
        merged = sorted({**table.get(target, {}), **fresh}.items())
        rows[target] = {key: row for key, row in merged if key in known}
    TABLE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
