"""The kernels compiled for GPUs that are not here: they fit in registers, and no count grew."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from griffin_core.errors import ConfigError
from griffin_core_torch.triton.aot import TARGETS, build, programs
from griffin_core_torch.triton.aot.compile import Build
from griffin_core_torch.triton.aot.table import committed, count, source, stale, worse
from griffin_core_torch.triton.loading import device

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "kernels-gpu.md"
FIRST = {program.key: program for program in programs()}
BUDGETS = {
    "gated_scan/forward": (60.0, 6.9),
    "gated_scan/backward": (124.0, 13.8),
    "linear_scan/forward": (45.0, 5.2),
    "linear_scan/backward": (75.0, 8.6),
    "conv1d/forward": (30.0, 3.4),
    "conv1d/backward": (45.0, 5.2),
}
"""Instructions and special functions that an H200 has time for while it moves a bfloat16 element to and fro."""


def test_what_grew_is_named() -> None:
    row = Build(registers=128, spills=0, instructions=40.0, special=6.0, memory=1024)
    table = {"sm_90": {"a": row, "b": row}}
    assert worse({"sm_90": {"a": replace(row, instructions=41.9), "b": row}}, table) == []
    said = worse({"sm_90": {"a": replace(row, spills=8, instructions=42.5), "c": row}}, table)
    assert said == [
        "a for sm_90: spills 8, the table says 0",
        "a for sm_90: instructions 42.5, the table says 40.0",
        "c for sm_90 is not in the table; run python -m griffin_core_torch.triton.aot.table --write",
    ]


def test_the_table_is_complete_and_nothing_spills_on_nvidia() -> None:
    table = committed()
    assert list(table) == list(TARGETS)
    for target, rows in table.items():
        assert set(rows) == set(FIRST)
        if target != "gfx942":
            assert {key: row.spills for key, row in rows.items()} == dict.fromkeys(rows, 0)


def test_the_page_shows_the_table() -> None:
    """Rows "| `program` | instructions | special | registers |" of docs/kernels-gpu.md are those of sm_90."""
    rows = re.findall(r"^\| `([\w/]+)` \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    shown = {key: [cell.strip() for cell in cells.split("|")] for key, cells in rows if key in FIRST}
    assert len(shown) >= 8
    for key, cells in shown.items():
        row = committed()["sm_90"][key]
        assert cells == [f"{row.instructions:.1f}", f"{row.special:.1f}", str(row.registers)], key


@pytest.mark.parametrize("pass_", BUDGETS)
def test_the_kernels_of_training_fit_the_budget(pass_: str) -> None:
    found = {key: row for key, row in committed()["sm_90"].items() if key.startswith(pass_) and key.endswith("/bf16")}
    assert found
    instructions, special = BUDGETS[pass_]
    for key, row in found.items():
        assert row.instructions <= instructions, key
        assert row.special <= special, key


@pytest.mark.parametrize(
    "key", ["gated_scan/forward/exact/bf16", "gated_scan/backward/aggregate/bf16", "conv1d/backward/bf16"]
)
def test_no_kernel_grew(key: str) -> None:
    assert worse(count(["sm_90"], [FIRST[key]]), committed()) == []


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
def test_other_gpus_are_compiled_for(target: str) -> None:
    assert worse(count([target], [FIRST["gated_scan/forward/exact/bf16"]]), committed()) == []


def test_the_table_is_of_these_sources() -> None:
    """So it need not be made again to be believed: what is compiled is a function of what the hashes cover."""
    if f"triton=={version('triton')}" not in (ROOT / "constraints.txt").read_text(encoding="utf-8").split():
        pytest.skip("the table is of the version of Triton in constraints.txt")
    assert stale() == []
    assert len({source(program) for program in programs()}) == len(FIRST)


def test_a_changed_kernel_makes_its_rows_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = device("conv_kernel").conv_kernel
    monkeypatch.setattr(kernel, "hash", "another")
    assert {name.split("/")[0] for name in stale()} == {"conv1d"}


@pytest.mark.prove
@pytest.mark.parametrize("target", TARGETS)
def test_no_program_grew(target: str) -> None:
    """Every program for one of the GPUs, in turn: the table's own command compiles all of them for all."""
    chosen = programs()[list(TARGETS).index(target) :: len(TARGETS)]
    assert worse(count([target], chosen), committed()) == []


def test_unknown_gpus_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown GPU 'sm_9'; did you mean 'sm_90'"):
        build(programs()[0], "sm_9")
