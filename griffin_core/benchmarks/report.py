"""The outcome of one measurement as rows, as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from griffin_core.benchmarks.cases import Target
from griffin_core.benchmarks.pairing import Ratio, Timing


@dataclass(frozen=True, kw_only=True)
class Row:
    """One timed thing.

    Attributes:
        name: what ran.
        seconds: median time of one unit of work.
        ratio: against the baseline, None for the baseline itself.
        note: work done, and at which rate.
        target: what the ratio must reach, None when nothing is asked.
    """

    name: str
    seconds: float
    ratio: Ratio | None = None
    note: str = ""
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is kept; None without one."""
        return None if self.target is None or self.ratio is None else self.target.met(self.ratio.median)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict."""
        return {
            "name": self.name,
            "seconds": self.seconds,
            "ratio": None if self.ratio is None else asdict(self.ratio),
            "note": self.note,
            "target": None if self.target is None else self.target.text(),
            "met": self.met,
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """One measurement.

    Attributes:
        path: "scan", "prefill", "decode" or "train".
        measures: what the ratio divides by what.
        rows: ours first, then the baseline, then the others.
        case: sizes and names that fix the case.
        machine: device, versions and commit.
        notes: lines below the table.
        timings: every round of every row, by name.
    """

    path: str
    measures: str
    rows: tuple[Row, ...]
    case: dict[str, Any]
    machine: dict[str, Any]
    notes: tuple[str, ...] = ()
    timings: dict[str, Timing] = field(default_factory=dict)

    def table(self) -> tuple[list[str], list[list[object]]]:
        """Columns and cells for people."""
        columns = ["what", "ms", self.measures, "lowest", "highest", "must be", "is it", "work"]
        return columns, [_cells(row) for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict with every round's seconds."""
        return {
            "path": self.path,
            "ratio_is": self.measures,
            "case": self.case,
            "machine": self.machine,
            "rows": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
            "rounds": {name: list(timing.rounds) for name, timing in self.timings.items()},
            "first_call": {name: timing.first for name, timing in self.timings.items()},
        }


def _cells(row: Row) -> list[object]:
    ratio = row.ratio
    figures: list[object] = (
        [None, None, None] if ratio is None else [_round(r) for r in (ratio.median, ratio.low, ratio.high)]
    )
    target = None if row.target is None else row.target.text()
    met = None if row.met is None else ("yes" if row.met else "NO")
    return [row.name, _round(1e3 * row.seconds), *figures, target, met, row.note]


def _round(value: float) -> float:
    return float(f"{value:.3g}")
