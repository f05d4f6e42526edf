"""A process that compiles programs for one generation and prints what the compiler's dumps say of them.

libtpu reads its flags once, when it is loaded, so every measurement has a process of its own; ``measure`` starts it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from griffin_core import env
from griffin_core.errors import BackendError
from griffin_core_jax.aot.compile import compile_for, require_libtpu
from griffin_core_jax.aot.layouts import layout_copies
from griffin_core_jax.aot.programs import Program, programs
from griffin_core_jax.aot.schedule import read_schedule
from griffin_core_jax.tpu.chips import Chip, chip

BUNDLES, CYCLES = "bundles", "cycles"
_FLAGS = {
    BUNDLES: "--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final_bundles",
    CYCLES: "--xla_jf_dump_static_llo_profile_to={folder}",
}
_FINAL = re.compile(r"^\d+-(?P<op>.+?)-\d+-final_bundles\.txt$")
_PROFILE = re.compile(r'hlo_op_name: "(?P<op>[^"]+)"\s+estimated_cycles: (?P<cycles>\d+)')
_RESULT = "RESULT "


def measure(
    what: str, row: Chip, shape: tuple[int, int, int], keys: Iterable[str] | None = None, seconds: float = 900.0
) -> dict[str, Any]:
    """Compile programs for one generation in a fresh process.

    Args:
        what: ``BUNDLES`` or ``CYCLES``.
        row: the generation.
        shape: (b, t, d) of every program.
        keys: names of the only programs; None is all.
        seconds: when to give up.

    Returns:
        By program. For bundles: "inner" and "step" bundles per 1024 elements (the loops of a grid step; all of it)
        and "copies", the layout copies of large arrays. For cycles: the estimate of the whole call.

    Raises:
        BackendError: no libtpu, no cycle profile for this generation, or the process failed; its last words are given.
    """
    require_libtpu()
    if what == CYCLES and not row.static_profile:
        raise BackendError(f"the compiler has no cycle profile for {row.name}; it has one from v5e on")
    folder = Path(tempfile.mkdtemp(prefix="griffin-aot-"))
    flags = {"LIBTPU_INIT_ARGS": _FLAGS[what].format(folder=folder), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    chosen = "" if keys is None else ",".join(keys)
    command = [sys.executable, "-m", __name__, what, row.name, ",".join(map(str, shape)), str(folder), chosen]
    try:
        done = subprocess.run(
            command,
            env=env.child_environment({**flags, "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    lines = [line[len(_RESULT) :] for line in done.stdout.splitlines() if line.startswith(_RESULT)]
    if done.returncode or not lines:
        last = " ".join(done.stderr.split())[-300:]
        raise BackendError(f"compiling for {row.name} failed with code {done.returncode}: {last}")
    found: dict[str, Any] = dict(json.loads(line) for line in lines)
    return found


def main(arguments: list[str]) -> None:
    """The process itself: one ``RESULT`` line for each program."""
    what, name, shape, place, chosen = arguments
    batch, time, width = (int(n) for n in shape.split(","))
    folder, row = Path(place), chip(name)
    for program in programs((batch, time, width)):
        if not chosen or program.key in chosen.split(","):
            clear(folder)
            compiled = compile_for(*program.build(), row)
            found: Any = cycles(program, folder) if what == CYCLES else bundles(program, row, folder)
            if what == BUNDLES:
                found["copies"] = len(layout_copies(compiled))
            sys.stdout.write(_RESULT + json.dumps([program.key, found]) + "\n")
            sys.stdout.flush()


def bundles(program: Program, row: Chip, folder: Path) -> dict[str, float]:
    """Bundles per 1024 elements of the program's kernel, from the dump of its compilation."""
    tiles = program.tiling(row)
    registers = tiles.block_time * tiles.block_width / 1024
    inner = step = 0
    for path in sorted(folder.iterdir()):
        match = _FINAL.match(path.name)
        if match is not None and program.counts(match["op"]):
            schedule = read_schedule(path.read_text(errors="replace"))
            inner, step = inner + schedule.inner, step + schedule.step
    if not inner:
        raise BackendError(f"the dump of {program.key} for {row.name} has no kernel of that name")
    return {"inner": round(inner / registers, 2), "step": round(step / registers, 2)}


def cycles(program: Program, folder: Path) -> int:
    """Estimated cycles of the program's kernel."""
    found = 0
    for path in folder.glob("*static_llo_profile.textproto"):
        for match in _PROFILE.finditer(path.read_text(errors="replace")):
            found += int(match["cycles"]) if program.counts(match["op"]) else 0
    return found


def clear(folder: Path) -> None:
    """Empty the dump's folder."""
    for path in folder.iterdir():
        path.unlink()


if __name__ == "__main__":
    main(sys.argv[1:])
