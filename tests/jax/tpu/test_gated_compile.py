"""gated_scan compiles for every generation at real sizes, with nothing around the kernels, in few bundles."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from griffin_core_jax.aot import bundles, compile_for, layout_copies, memory, topology_devices
from griffin_core_jax.aot.programs import programs
from griffin_core_jax.tpu import chips
from griffin_core_jax.tpu.gated_scan import gated_scan

PAGE = Path(__file__).resolve().parents[3] / "docs" / "kernels-tpu.md"
SIZES = [(8, 8192, 2560), (1, 131072, 4096), (8, 8192, 5120)]


def step(
    x: jax.Array, gate_x: jax.Array, gate_a: jax.Array, param: jax.Array, h0: jax.Array, positions: jax.Array
) -> tuple[jax.Array, ...]:
    """Outputs, and gradients for cotangents that are the outputs."""
    outputs, pull = jax.vjp(lambda *given: gated_scan(*given, positions), x, gate_x, gate_a, param, h0)
    return *outputs, *pull(outputs)


def arguments(shape: tuple[int, int, int], dtype: str) -> tuple[jax.ShapeDtypeStruct, ...]:
    struct = jax.ShapeDtypeStruct
    batch, time, width = shape
    x, wide = struct(shape, jnp.dtype(dtype)), jnp.float32
    return x, x, x, struct((width,), wide), struct((batch, width), wide), struct((batch, time), jnp.int32)


def committed(name: str, kernel: str, direction: str, dtype: str = "bfloat16") -> float:
    return bundles.committed()[name][f"gated_scan/{kernel}/{direction}/{dtype}/plain"]


def test_few_bundles() -> None:
    """Full-precision gates in fewer bundles than a row loop with approximate reciprocals took: 12.9, 11.3 and 9.1."""
    for name, bar in (("v5e", 12.9), ("v5p", 11.3), ("v6e", 9.1)):
        assert committed(name, "pallas-approx", "forward") < 0.85 * bar
        assert committed(name, "pallas", "forward") < 1.06 * bar
    for name in chips.CHIPS:
        for dtype in ("bfloat16", "float32"):
            forward, backward = (committed(name, "pallas", direction, dtype) for direction in ("forward", "backward"))
            assert backward < 2.2 * forward, (name, dtype)


@pytest.mark.parametrize("name", ["v5e", "v5p", "v6e"])
def test_near_the_floor_of_memory(name: str) -> None:
    """At [8, 8192, 2560]: compute within 1.15 of the time that 8 and 14 bytes an element take at the HBM bandwidth."""
    row = chips.CHIPS[name]
    for program in programs():
        if program.kernel.name == "pallas" and program.kernel.op == "gated_scan" and not program.marked:
            assert bundles.committed()[name][program.key] < 1.15 * bundles.floor_cycles(program, row), program.key


def test_the_page_shows_the_table() -> None:
    """Each row "| `kernel`, direction, dtype | count (HBM cycles) | ..." of docs/kernels-tpu.md."""
    by_key = {program.key: program for program in programs()}
    rows = re.findall(r"^\| `([\w-]+)`, (\w+), (\w+) \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 6
    for kernel, direction, dtype, cells in rows:
        program = by_key[f"gated_scan/{kernel}/{direction}/{dtype}/plain"]
        assert [cell.strip() for cell in cells.split("|")] == [
            f"{committed(name, kernel, direction, dtype):.1f} ({bundles.floor_cycles(program, row):.1f})"
            for name, row in chips.CHIPS.items()
        ]


@pytest.mark.usefixtures("libtpu")
def test_a_narrow_ragged_call_compiles() -> None:
    compiled = compile_for(step, arguments((2, 77, 200), "bfloat16"), "v5e")
    assert compiled.as_text().count("tpu_custom_call") >= 2


@pytest.mark.prove
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("name", chips.CHIPS)
def test_real_sizes_compile_without_copies(name: str, shape: tuple[int, int, int], dtype: str) -> None:
    compiled = compile_for(step, arguments(shape, dtype), name)
    assert layout_copies(compiled) == ()
    states = 4 * shape[0] * shape[1] * shape[2] // 32  # one float32 row for each time block of 32 rows or more
    assert memory(compiled).temporaries <= states + 2**25


@pytest.mark.prove
@pytest.mark.usefixtures("libtpu")
def test_a_split_scan_needs_no_communication() -> None:
    """Batch and width over four devices, under shard_map's check: only the parameter's gradient is summed."""
    mesh = Mesh(np.array(topology_devices("v5e:2x2")).reshape(2, 2), ("data", "model"))
    sequence, row, channel, marks = P("data", None, "model"), P("data", "model"), P("model"), P("data")
    specs = (sequence, sequence, sequence, channel, row, marks)
    shapes = arguments((4, 8192, 2560), "bfloat16")
    placed = [
        jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=NamedSharding(mesh, spec))
        for v, spec in zip(shapes, specs, strict=True)
    ]
    split = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=(sequence, row, *specs[:5]))
    text = compile_for(split, placed, "v5e").as_text()
    assert text.count("tpu_custom_call") == 2
    found = re.findall(r"= \S+ (all-\w+|collective-\w+|reduce-scatter)", text)
    assert found == ["all-reduce"]
