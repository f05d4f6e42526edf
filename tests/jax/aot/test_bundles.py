"""Bundle counts against the committed table: a slower kernel fails, and so does one that the table lacks."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from griffin_core.errors import BackendError
from griffin_core_jax.aot import bundles, require_libtpu
from griffin_core_jax.aot.estimate import estimate
from griffin_core_jax.aot.probe import BUNDLES, measure
from griffin_core_jax.aot.programs import SHAPE, programs
from griffin_core_jax.aot.schedule import Loop, read_schedule
from griffin_core_jax.tpu import chips
from griffin_core_jax.tpu.kernels import KERNELS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "kernels-tpu.md"

DUMP = """
LB: loop body
     0   :  { %s1 = smov.u32 0 }
   0x1 LB: > { %s2 = sphi }
   0x2   : > { }
   0x3 LB: >> { %v1 = vld }
   0x4   : >> { %p1 = scmp.ge.s32.totalorder %s3, 16 /* loop exit test */ }
   0x5   : >> { %v2 = vst }
   0x6 LB: >>> { %v3 = vld ;;  %p2 = scmp.ge.s32.totalorder %s4, 4 /* loop exit test */ }
   0x7   : > { %p3 = scmp.ge.s32.totalorder %s2, 34 /* loop exit test */ }
   0x8 LB: >> { a copy of a ragged end, whose turns are not written }
   0x9   :  { }
"""


def test_schedules_are_read() -> None:
    found = read_schedule(DUMP)
    assert found.loops == (Loop(1, 3, 34, 1), Loop(2, 3, 16, 16), Loop(3, 1, 4, 64), Loop(2, 1, 0, 1))
    assert found.inner == 3 * 16 + 64 + 1
    assert found.step == found.inner + 3
    with pytest.raises(BackendError, match="not understood"):
        read_schedule(DUMP.replace("loop exit test", "end"))


def test_slower_and_unknown_kernels_are_named() -> None:
    found = {"v5e": {"a": 10.0, "b": 5.0, "c": 1.0}}
    assert bundles.slower(found, {"v5e": {"a": 10.0, "b": 5.0, "c": 2.0}}) == []
    assert bundles.slower(found, {"v5e": {"a": 9.9, "b": 5.0, "c": 1.0}}) == []
    said = bundles.slower(found, {"v5e": {"a": 9.6, "b": 5.0}})
    assert said == [
        "a on v5e takes 10.0 bundles per 1024 elements, the table says 9.6",
        "c on v5e is not in the table; run python -m griffin_core_jax.aot.bundles --write",
    ]


def test_the_table_is_complete() -> None:
    table = bundles.committed()
    assert list(table) == list(chips.CHIPS)
    assert {name: set(counts) for name, counts in table.items()} == {
        name: {program.key for program in programs()} for name in chips.CHIPS
    }


def test_the_plain_recurrence_beats_the_familys_other_kernel() -> None:
    """12 bundles per 1024 elements is what the public Pallas kernel takes on v5e for the recurrence alone."""
    table = bundles.committed()
    for name in ("v5e", "v5p", "v6e", "tpu7x"):
        assert all(table[name][f"linear_scan/pallas/forward/{d}/marked"] < 6.5 for d in ("bfloat16", "float32"))
    for name in ("v5e", "v5p", "v6e"):
        row = chips.CHIPS[name]
        for program in programs():
            if program.kernel.op == "linear_scan":
                assert table[name][program.key] < bundles.floor_cycles(program, row), (program.key, name)


def test_the_page_shows_the_table() -> None:
    """Each row "| `op` direction, dtype | count (HBM cycles) | ..." of docs/kernels-tpu.md."""
    table, by_key = bundles.committed(), {program.key: program for program in programs()}
    rows = re.findall(
        r"^\| `(\w+)` (forward|backward), (\w+) \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) >= 4
    for op, direction, dtype, cells in rows:
        key = f"{op}/pallas/{direction}/{dtype}/marked"
        shown = [cell.strip() for cell in cells.split("|")]
        floors = [bundles.floor_cycles(by_key[key], row) for row in chips.CHIPS.values()]
        assert shown == [
            f"{table[name][key]:.1f} ({floor:.1f})" for name, floor in zip(chips.CHIPS, floors, strict=True)
        ]


@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("op", ["linear_scan", "gated_scan"])
def test_no_kernel_is_slower(op: str) -> None:
    """The kernel of each operation that is chosen first, on one generation; `make prove` counts all on all."""
    first = next(kernel.name for kernel in KERNELS if kernel.op == op)
    keys = [f"{op}/{first}/{direction}/bfloat16/marked" for direction in ("forward", "backward")]
    found = measure(BUNDLES, chips.CHIPS["v5e"], SHAPE, keys)
    assert list(found) == keys
    assert {key: row["copies"] for key, row in found.items()} == dict.fromkeys(keys, 0)
    assert all(row["step"] > row["inner"] > 0 for row in found.values())
    assert bundles.slower({"v5e": {key: row["inner"] for key, row in found.items()}}, bundles.committed()) == []


@pytest.mark.prove
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("name", chips.CHIPS)
def test_no_program_is_slower_or_has_layout_copies(name: str) -> None:
    found = measure(BUNDLES, chips.CHIPS[name], SHAPE)
    assert {key: row["copies"] for key, row in found.items()} == dict.fromkeys(found, 0)
    assert bundles.slower({name: {key: row["inner"] for key, row in found.items()}}, bundles.committed()) == []


@pytest.mark.prove
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize(("name", "direction"), [("v5e", "forward"), ("v5e", "backward"), ("v5p", "forward")])
def test_linear_scan_is_limited_by_memory(name: str, direction: str) -> None:
    key = f"linear_scan/pallas/{direction}/bfloat16/plain"
    program = next(program for program in programs((1, 4096, 2560)) if program.key == key)
    found = estimate(program, chips.CHIPS[name])
    assert found.cycles > 0
    assert found.over_floor < 1.15


@pytest.mark.prove
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("name", ["v5e", "v5p"])
def test_the_faster_gated_scan_is_limited_by_memory(name: str) -> None:
    """On v5e the page's size, 16 times as large, takes minutes for the same multiple."""
    key = "gated_scan/pallas-approx/forward/bfloat16/plain"
    program = next(program for program in programs((1, 4096, 2560)) if program.key == key)
    assert estimate(program, chips.CHIPS[name]).over_floor < 1.15


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'griffin-core\[tpu-aot\]'"):
        require_libtpu()


@pytest.mark.usefixtures("libtpu")
def test_generations_without_a_profile_are_refused() -> None:
    with pytest.raises(BackendError, match="no cycle profile for v4"):
        estimate(programs((1, 256, 128))[0], chips.CHIPS["v4"])
