"""What a training step would take on a pod, compiled ahead of time without one.

    python -m griffin_core_jax.sharding.pods
    python -m griffin_core_jax.sharding.pods --model griffin-14b --topology v5e:16x16 --fsdp 32 --tensor 8 --rows 32

It needs the ``libtpu`` package (extra ``tpu-aot``) and about 2 GiB of memory; nothing is allocated for the model.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from griffin_core import presets
from griffin_core.config import GriffinConfig
from griffin_core.errors import GriffinError
from griffin_core.schedules import TrainerOptions
from griffin_core_jax.aot.compile import Memory, memory, topology_devices
from griffin_core_jax.devices import targeting as for_platform
from griffin_core_jax.layout import segments
from griffin_core_jax.sharding.hlo import Collective, collectives
from griffin_core_jax.sharding.mesh import make_mesh
from griffin_core_jax.sharding.shapes import abstract_step
from griffin_core_jax.sharding.table import TENSOR
from griffin_core_jax.sharding.training import make_train_step
from griffin_core_jax.tpu.chips import chip, targeting

GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """One training step on one pod.

    Attributes:
        model: name of a preset.
        topology: as libtpu names it.
        fsdp, tensor, sequence: sizes of the mesh; ``data`` is what they leave.
        rows, time: the whole batch.
    """

    model: str
    topology: str
    fsdp: int
    tensor: int
    rows: int
    time: int
    sequence: int = 1


PLANS: tuple[Plan, ...] = (
    Plan("griffin-14b", "v5e:16x16", fsdp=8, tensor=8, rows=32, time=4096),
    Plan("recurrentgemma-9b", "v5e:16x16", fsdp=32, tensor=8, rows=32, time=4096),
    Plan("griffin-14b", "v5p:8x8x8", fsdp=8, tensor=8, rows=256, time=8192),
    Plan("recurrentgemma-9b", "v5p:8x8x8", fsdp=32, tensor=8, rows=256, time=8192),
)
"""Pieces of the width are multiples of 128 (5120 / 8, 4096 / 32): the compiler pads others and moves them again."""


@dataclass(frozen=True)
class Report:
    """What the compiler says of a plan.

    Attributes:
        mesh: sizes by axis.
        layers: number of layers of the model.
        memory: of one device.
        limit: HBM of one device, as the compiler states it.
        collectives: of the whole program, each once however often its loop turns; None where libtpu does not export
            its program.
        seconds: that compilation took.
    """

    plan: Plan
    mesh: Mesh
    config: GriffinConfig
    memory: Memory
    limit: int
    collectives: tuple[Collective, ...] | None
    seconds: float

    def per_layer(self) -> dict[tuple[str, tuple[str, ...], bool], float]:
        """Collectives inside the loops over layers, by (kind, axes, backward), for one layer on average.

        A loop's body holds one period of layers; a segment of one period may be written out without a loop.
        """
        loop = max(segments(self.config), key=lambda segment: segment.repeats)
        inside = [c for c in self.collectives or () if c.loops and c.loops[0][1] == loop.repeats]
        counts = Counter((c.kind, c.axes, c.backward) for c in inside)
        return {key: count / len(loop.kinds) for key, count in sorted(counts.items())}


def measure(plan: Plan, kernel: str | None = None) -> Report:
    """Compile one AdamW step in bfloat16, row-split outputs kept and the rest computed again.

    Args:
        kernel: name of a kernel for the recurrent operations; None is the first that a TPU can run.

    Raises:
        BackendError: no ``libtpu``, or it does not know the topology.
        ConfigError: the model cannot be split so.
        InputError: the batch cannot be.
        jax.errors.JaxRuntimeError: the compiler refuses the program, for its memory say.
    """
    config = presets.preset(plan.model).config
    row = chip(plan.topology.partition(":")[0])
    given = topology_devices(plan.topology)
    mesh = make_mesh(given, fsdp=plan.fsdp, tensor=plan.tensor, sequence=plan.sequence)
    options = TrainerOptions(steps=1, compute_dtype="bfloat16", checkpoint_activations=True)
    arguments = abstract_step(config, mesh, options, plan.rows, plan.time)
    start = time.perf_counter()
    with for_platform("tpu"), targeting(row):
        step = make_train_step(config, mesh, options, arguments[0], kernel=kernel, donate=True)
        compiled = step.lower(*arguments).compile()  # type: ignore[attr-defined]
    seconds = time.perf_counter() - start
    return Report(plan, mesh, config, memory(compiled), row.hbm_bytes, collectives(compiled, mesh), seconds)


HEADER = (
    "| model | topology | data x fsdp x sequence x tensor | batch | arguments | temporaries | peak | HBM "
    "| all-reduce a layer, forward + backward | other a layer |\n|---|---|---|---|---|---|---|---|---|---|"
)


def line(report: Report) -> str:
    """One row of the table, sizes in GiB of one device."""
    plan, found = report.plan, report.memory
    counts = report.per_layer()
    sums = " + ".join(f"{counts.pop(('all-reduce', (TENSOR,), backward), 0.0):.4g}" for backward in (False, True))
    other = ", ".join(
        f"{kind} over {' and '.join(axes) or 'no axis'}, {'backward' if backward else 'forward'}: {count:.4g}"
        for (kind, axes, backward), count in counts.items()
    )
    sizes = " x ".join(str(size) for size in report.mesh.shape.values())
    used = (found.arguments, found.temporaries, found.peak, report.limit)
    seen = (sums, other or "none") if report.collectives is not None else ("not exported", "not exported")
    cells = (plan.model, plan.topology, sizes, f"{plan.rows} x {plan.time}", *(f"{n / GIB:.2f}" for n in used))
    return "| " + " | ".join((*cells, *seen)) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 when every step compiles, 2 when one is refused: not divisible, or more than the memory."""
    parser = argparse.ArgumentParser(prog="python -m griffin_core_jax.sharding.pods", description=__doc__)
    parser.add_argument("--model", help="preset; left out: the four plans of the documentation")
    parser.add_argument("--topology", default="v5e:16x16", help="as libtpu names it (default v5e:16x16)")
    for name in ("fsdp", "tensor", "sequence"):
        parser.add_argument(f"--{name}", type=int, default=1, help="size of the axis (default 1)")
    parser.add_argument("--rows", type=int, default=256, help="rows of the whole batch (default 256)")
    parser.add_argument("--time", type=int, default=4096, help="tokens a row (default 4096)")
    parser.add_argument("--kernel", help="kernel of the recurrent operations (default: the first a TPU can run)")
    given = parser.parse_args(arguments)
    plans = PLANS
    if given.model:
        sizes = {name: getattr(given, name) for name in ("fsdp", "tensor", "sequence", "rows", "time")}
        plans = (Plan(given.model, given.topology, **sizes),)
    sys.stdout.write(HEADER + "\n")
    for plan in plans:
        sys.stdout.flush()
        try:
            report = measure(plan, given.kernel)
        except (GriffinError, jax.errors.JaxRuntimeError) as error:
            sys.stderr.write(f"griffin: error: {' '.join(str(error).split())[:300]}\n")
            return 2
        sys.stdout.write(line(report) + "\n")
        sys.stderr.write(f"compiled in {report.seconds:.0f} s\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
