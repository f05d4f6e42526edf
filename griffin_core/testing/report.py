"""What the kit found: one record for each property, a verdict, and what to paste to see a failure again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from griffin_core.errors import ConformanceError

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One property of one subject.

    Attributes:
        subject: what was judged, e.g. "torch linear_scan, kernel loop".
        property: its name.
        about: what it says.
        status: "passed", "failed" or "skipped".
        cases: cases judged.
        refused: cases that the kernel itself refused, by reason.
        ratio: the largest error in units of its bound (0 where values must be equal).
        error, bound, where: that error, its bound and the element.
        ambiguous: tokens left out because two choices were closer than the bound.
        reason: why it failed or was skipped.
        case: the shrunk failing case.
        reproduce: code that shows the failure again.
        seconds: time taken.
    """

    subject: str
    property: str
    about: str
    status: str
    cases: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    ratio: float = 0.0
    error: float = 0.0
    bound: float = 0.0
    where: str = ""
    ambiguous: int = 0
    reason: str = ""
    case: str = ""
    reproduce: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """All records of one run. Printing it gives a plain table and the failures in full."""

    title: str
    records: tuple[Record, ...]

    @property
    def passed(self) -> bool:
        """Whether something was judged and nothing failed."""
        return any(r.status == PASSED for r in self.records) and not self.failures

    @property
    def failures(self) -> tuple[Record, ...]:
        """The records that failed."""
        return tuple(r for r in self.records if r.status == FAILED)

    @property
    def skipped(self) -> tuple[Record, ...]:
        """The records that could not be judged, with their reasons."""
        return tuple(r for r in self.records if r.status == SKIPPED)

    def __add__(self, other: Report) -> Report:
        return Report(self.title, self.records + other.records)

    def raise_if_failed(self) -> None:
        """Raise unless every property holds.

        Raises:
            ConformanceError: naming the properties that fail and the first shrunk case.
        """
        if self.passed:
            return
        if not self.failures:
            raise ConformanceError(f"{self.title}: no property could be judged; see the reasons in report.skipped")
        first = self.failures[0]
        names = ", ".join(f"{r.subject}: {r.property}" for r in self.failures)
        raise ConformanceError(f"{self.title} fails {names}; first, on {first.case}: {first.reason}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict."""
        counts = {status: sum(r.status == status for r in self.records) for status in (PASSED, FAILED, SKIPPED)}
        return {
            "title": self.title,
            "passed": self.passed,
            "counts": counts,
            "records": [asdict(r) for r in self.records],
        }

    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells: subject, property, verdict, cases, closest call, note."""
        return [(r.subject, r.property, r.status, str(r.cases or ""), times(r.ratio), note(r)) for r in self.records]

    def details(self) -> str:
        """Every failure in full: the reason, the shrunk case, and what to paste."""
        parts = []
        for r in self.failures:
            head = f"{r.subject} fails {r.property!r}: {r.about}"
            parts.append(
                f"{head}\n  {r.reason}\n  shrunk case: {r.case}\n  to see it again:\n\n{indent(r.reproduce)}\n"
            )
        return "\n".join(parts)

    def __str__(self) -> str:
        columns = ("subject", "property", "verdict", "cases", "of bound", "note")
        rows = [columns, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(columns) - 1)]
        lines = [
            "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows
        ]
        return "\n".join([self.title, *lines, "", self.details()]).rstrip() + "\n"


def times(ratio: float) -> str:
    """A share of the bound, short: two decimals, or powers of ten when far beyond it."""
    if not ratio:
        return ""
    return f"{ratio:.2f}" if ratio < 1000 else f"{ratio:.0e}"


def note(record: Record) -> str:
    """The short remark of a record's line."""
    if record.status != PASSED:
        return record.reason if record.status == SKIPPED else f"on {record.case}"
    remarks = [f"{sum(record.refused.values())} cases refused by the kernel"] if record.refused else []
    remarks += [f"{record.ambiguous} tokens within the bound of a tie"] if record.ambiguous else []
    return "; ".join(remarks)


def indent(code: str) -> str:
    """The code four columns to the right."""
    return "\n".join(f"    {line}" for line in code.splitlines())
