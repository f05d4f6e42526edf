"""``griffin demo`` as a service: every part in turn, a report of all, and a verdict."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from griffin_core import api, registry
from griffin_core.checkpoints.files import named_errors
from griffin_core.cli.console import Output, to_json
from griffin_core.demo import parts, training
from griffin_core.demo.report import write_page
from griffin_core.errors import InputError
from griffin_core.protocol import capability
from griffin_core.text.corpus import HELDOUT_FRACTION, embedded_corpus
from griffin_core.training.progress import ProgressReporter

MARKER = "demo.json"
"""The file that says a directory is a demo's, and may be made anew."""
PACKAGES = ("griffin-core", "numpy", "torch")


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Settings of a demo.

    Attributes:
        out: directory for everything; an earlier demo there is replaced.
        seconds: time for the training steps; None is three minutes, or longer on a slow machine.
        backend: None chooses as everywhere.
    """

    out: Path
    seconds: float | None = None
    backend: str | None = None


def run(options: DemoOptions, output: Output) -> dict[str, Any]:
    """Run the demo.

    Returns:
        The report, which is also written to ``report.json``; its key ``passed`` is the verdict.

    Raises:
        InputError: the directory holds something else, or the time is not legal.
        BackendError: the backend is unknown or cannot train.
    """
    begun = time.perf_counter()
    training.check_seconds(options.seconds)
    backend = registry.choose_backend(options.backend)
    capability(backend, registry.load_backend(backend), "Trainer")
    _make_room(options)
    report: dict[str, Any] = {"backend": backend, "versions": versions(), "machine": platform.machine()}
    report |= _train(options, backend, output)
    report |= _show(options.out, backend, output)
    failures = verdict(report)
    report |= {"failures": failures, "passed": not failures, "seconds": time.perf_counter() - begun}
    write_page(options.out, report)
    with named_errors(f"write {options.out}"):
        (options.out / "report.json").write_text(to_json(report) + "\n", encoding="utf-8")
    return report


def verdict(report: Mapping[str, Any]) -> list[str]:
    """What did not hold, one line each; empty when the demo passed."""
    failures = []
    for name in ("gzip", "xz"):
        model, other = report["heldout_bits_per_byte"], report[f"{name}_bits_per_byte"]
        if not model < other:
            failures.append(f"the model needs {model:.3f} bits per byte on the held-out text, {name} -9 {other:.3f}")
    if not report["continuation"]["same"]:
        reason = report["continuation"].get("reason", "its tokens differ from those made in one go")
        failures.append(f"the resumed continuation is not the same: {reason}")
    if not report["verification"]["passed"]:
        failed = [row[0] for row in report["verification"]["kernels"] if row[2] != "none"]
        failures.append(f"verification fails for {', '.join(failed) or 'every kernel: nothing was judged'}")
    return failures


def versions() -> dict[str, str]:
    """Python and the packages whose versions decide the figures."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _train(options: DemoOptions, backend: str, output: Output) -> dict[str, Any]:
    corpus = embedded_corpus()
    _, held = corpus.split()
    output.say(f"Text: {len(corpus.documents)} documents of this Python's own documentation, {len(held)} held out.")
    output.say("\n1. Training")
    summary = training.train(options.out / "run", backend, options.seconds, ProgressReporter(sys.stderr))
    bits = {name: summary[f"{name}_bits_per_byte"] for name in ("heldout", "gzip", "xz")}
    rows = [["this model", bits["heldout"]], ["gzip -9", bits["gzip"]], ["xz -9", bits["xz"]]]
    output.say(f"\n2. Held-out text ({summary['heldout']['bytes']:,} bytes): bits per byte, less is better")
    output.table(["", "bits per byte"], rows)
    documents = {"documents": len(corpus.documents), "heldout_documents": len(held), "share": HELDOUT_FRACTION}
    return {
        **{f"{name}_bits_per_byte": value for name, value in bits.items()},
        "corpus": {**documents, "heldout_bytes": summary["heldout"]["bytes"], "digest": corpus.digest},
        "training": summary,
    }


def _show(out: Path, backend: str, output: Output) -> dict[str, Any]:
    checkpoint = out / "run" / "checkpoint"
    output.say("3. A sample")
    shown = parts.sample(api.load(checkpoint, backend=backend), output)
    output.say("\n4. A state, saved and resumed by a fresh session")
    again = parts.continuation(checkpoint, backend, out / "demo.state")
    output.say(_continuation_text(again))
    output.say("\n5. The kernels against the reference")
    report = parts.verification(backend, output)
    rows = parts.kernel_rows(report)
    output.table(["kernel", "properties", "failed", "cases", "largest error / bound"], rows)
    for line in report.details().splitlines():
        output.say(line)
    output.say("6. Conversion")
    made = parts.conversion(checkpoint, out / "checkpoint-bf16", backend)
    output.say(f"to {made['dtype']}: {made['bytes_before']:,} -> {made['bytes_after']:,} bytes")
    judged = {"passed": report.passed, "kernels": rows, "records": report.to_dict()["records"]}
    return {"sample": shown, "continuation": again, "verification": judged, "conversion": made}


def _continuation_text(found: Mapping[str, Any]) -> str:
    if "reason" in found:
        return str(found["reason"])
    head = f"{found['state_bytes']:,} bytes hold the state after {found['tokens_read']} tokens."
    same = "the same as in one go" if found["same"] else f"NOT the same as in one go: {found['in_one_go']!r}"
    return f"{head}\nbefore:  {found['before']!r}\nresumed: {found['after']!r}\nTogether they are {same}."


def _make_room(options: DemoOptions) -> None:
    """An empty directory with the marker; only an earlier demo's directory is emptied."""
    out = options.out
    with named_errors(f"write {out}"):
        if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARKER).is_file())):
            raise InputError(f"{out} holds something that is not a demo's; choose another --out")
        if out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True)
        (out / MARKER).write_text(to_json({"seconds": options.seconds, "backend": options.backend}) + "\n")
