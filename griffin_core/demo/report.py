"""The demo's report as a page: what was measured, the loss curve, the samples, the verification."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from griffin_core.checkpoints.files import named_errors
from griffin_core.demo import charts, page
from griffin_core.demo.charts import Series

TITLE = "Griffin Core: the demo's report"
SMOOTHED_OVER = 0.02
"""Share of the run that the moving average covers."""
MOST_POINTS = 400
SHOWN = {
    "parameters": "parameters",
    "steps": "steps",
    "tokens": "tokens",
    "training_seconds": "seconds of training",
    "final_loss": "loss of the last 20 steps, nats a token",
}
"""Keys of a run's summary that the page shows, and how it calls them."""


def write_page(out: Path, report: Mapping[str, Any]) -> Path:
    """Write ``report.html`` into the demo's directory.

    Args:
        out: holds ``run/metrics.jsonl``.
        report: what ``griffin_core.demo.run.run`` gathers.
    """
    metrics = (out / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    html = render(report, [json.loads(line) for line in metrics])
    path = out / "report.html"
    with named_errors(f"write {path}"):
        path.write_text(html, encoding="utf-8")
    return path


def render(report: Mapping[str, Any], metrics: Sequence[Mapping[str, float]]) -> str:
    """The page's HTML."""
    sections = [
        ("Held-out text", _heldout(report)),
        ("Training", _training(report, metrics)),
        ("A sample", _sample(report["sample"])),
        ("A state, saved and resumed", _continuation(report["continuation"])),
        ("The kernels against the reference", _verification(report["verification"])),
        ("Conversion", page.facts(report["conversion"])),
        ("What ran", page.facts({**report["versions"], "backend": report["backend"], "machine": report["machine"]})),
    ]
    return page.page(TITLE, sections, _lead(report))


def _lead(report: Mapping[str, Any]) -> str:
    lines = [f"<p>Verdict: {page.mark(report['passed'])} after {report['seconds']:.0f} seconds.</p>"]
    lines += [page.paragraph(line, "bad") for line in report["failures"]]
    return "\n".join(lines)


def _heldout(report: Mapping[str, Any]) -> str:
    corpus = report["corpus"]
    rows = [
        [name, round(report[f"{key}_bits_per_byte"], 3)]
        for key, name in (("heldout", "this model"), ("gzip", "gzip -9"), ("xz", "xz -9"))
    ]
    text = (
        f"{corpus['heldout_documents']} of {corpus['documents']} documents ({corpus['heldout_bytes']:,} bytes) were "
        "never trained on. Bits per byte on them, beside two compressors on the same bytes; less is better."
    )
    by_position = [
        [f"{row['start']:,} to {row['stop'] - 1:,}", row["tokens"], round(row["loss"] / math.log(2.0), 3)]
        for row in report["training"]["heldout"]["loss_by_position"]
    ]
    places = page.table(["position in the document", "tokens", "bits per token"], by_position)
    return page.paragraph(text) + page.table(["", "bits per byte"], rows) + "<h3>By position</h3>" + places


def _training(report: Mapping[str, Any], metrics: Sequence[Mapping[str, float]]) -> str:
    summary = report["training"]
    steps = [record for record in metrics if "loss" in record]
    levels = [("held out", "heldout"), ("xz -9", "xz"), ("gzip -9", "gzip")]
    series = [Series("training", smoothed([(r["step"], r["loss"] / math.log(2.0)) for r in steps]))]
    series += [Series(name, [(0.0, report[f"{key}_bits_per_byte"])]) for name, key in levels]
    chart = charts.line_chart(series, "step", "bits per byte", "Loss over the steps")
    return chart + page.facts({label: summary[name] for name, label in SHOWN.items() if name in summary})


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A moving average over the points before, thinned to what a chart can show."""
    width = max(1, int(SMOOTHED_OVER * len(points)))
    means = []
    for index, (x, _) in enumerate(points):
        window = [y for _, y in points[max(0, index - width + 1) : index + 1]]
        means.append((x, sum(window) / len(window)))
    return means[:: max(1, len(means) // MOST_POINTS)]


def _sample(found: Mapping[str, Any]) -> str:
    return page.text_block(found["prompt"] + found["text"])


def _continuation(found: Mapping[str, Any]) -> str:
    if "reason" in found:
        return page.paragraph(found["reason"], "bad")
    text = (
        f"After {found['tokens_read']} tokens the state was written to a file of {found['state_bytes']:,} bytes. A "
        "fresh session read it and went on. Its text must be the same as that of a session that was never interrupted."
    )
    verdict = f"<p>The same: {page.mark(found['same'], 'yes', 'NO')}</p>"
    blocks = page.text_block(found["before"]) + page.text_block(found["after"])
    return page.paragraph(text) + verdict + blocks + ("" if found["same"] else page.text_block(found["in_one_go"]))


def _verification(found: Mapping[str, Any]) -> str:
    columns = ["kernel", "properties", "failed", "cases", "largest error / bound"]
    note = "A kernel holds when every error stays under its bound, so the last column must be below 1."
    return (
        f"<p>All hold: {page.mark(found['passed'], 'yes', 'NO')}</p>"
        + page.table(columns, found["kernels"])
        + page.paragraph(note, "note")
    )
