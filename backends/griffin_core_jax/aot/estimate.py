"""Static time estimates: ``python -m griffin_core_jax.aot.estimate [--chip NAME] [--kernel OP] [--shape B,T,D]``.

The compiler simulates a kernel's schedule and the latency of its transfers, but hardly their contention for memory.
So a kernel's time is taken as the larger of its estimate and of its bytes over the HBM bandwidth. It ranks kernels
and blocks; nothing here was measured on a TPU, and clocks are assumed (``tpu.chips``).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from math import prod

from griffin_core_jax.aot.bundles import floor_cycles
from griffin_core_jax.aot.probe import CYCLES, measure
from griffin_core_jax.aot.programs import Program, programs
from griffin_core_jax.tpu.chips import CHIPS, Chip

SHAPE = (2, 16384, 2560)
"""Arrays too large for XLA to prefetch them whole into VMEM; the simulation takes half a minute for each program."""


@dataclass(frozen=True)
class Estimate:
    """One program on one device of a generation.

    Attributes:
        program: what was compiled.
        chip: for which generation.
        cycles: the compiler's estimate of the kernel.
        floor: cycles that its bytes take at the HBM bandwidth.
    """

    program: Program
    chip: Chip
    cycles: int
    floor: float

    @property
    def milliseconds(self) -> float:
        """The larger of both, at the assumed clock."""
        return 1e3 * max(self.cycles, self.floor) / self.chip.clock

    @property
    def over_floor(self) -> float:
        """How many times the memory floor that is; 1 is a kernel limited by memory."""
        return max(self.cycles / self.floor, 1.0)


def estimate(program: Program, row: Chip, seconds: float = 600.0) -> Estimate:
    """Estimate one program in a process of its own.

    The simulation unrolls the grid: keep shapes small. It gives up on transfers to scalar memory on v5e (marked
    programs), and on v5p it finds no room for kernels that ask for more VMEM than the default.

    Raises:
        BackendError: no libtpu, no estimate for this generation, or the compiler gave up.
    """
    found = measure(CYCLES, row, program.shape, [program.key], seconds)[program.key]
    elements = prod(program.shape)
    return Estimate(program, row, found, floor_cycles(program, row) * elements / 1024 / row.cores)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    known = [name for name, row in CHIPS.items() if row.static_profile]
    parser = argparse.ArgumentParser(prog=f"python -m {__name__}", description=__doc__)
    parser.add_argument("--chip", choices=known, action="append", help="only this generation (may be repeated)")
    parser.add_argument("--kernel", default="bfloat16/plain", help="programs whose name contains this (%(default)s)")
    parser.add_argument("--shape", default=",".join(map(str, SHAPE)), help="b,t,d (%(default)s)")
    chosen = parser.parse_args(arguments)
    batch, time, width = (int(n) for n in chosen.shape.split(","))
    for name in chosen.chip or known:
        for program in programs((batch, time, width)):
            if chosen.kernel in program.key:
                found = estimate(program, CHIPS[name])
                sys.stdout.write(
                    f"{name:6s} {program.key:44s} {found.cycles / 1e3:9.0f} kcycles, memory {found.floor / 1e3:9.0f}: "
                    f"{found.milliseconds:7.3f} ms, {found.over_floor:.2f} x memory\n"
                )
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
