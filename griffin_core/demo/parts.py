"""What the demo shows of a trained model: a sample, a resumed state, verified kernels, a converted checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from griffin_core import api, registry
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.cli.console import Output
from griffin_core.generation import service, state_file
from griffin_core.model import Model
from griffin_core.sampling import Sampling
from griffin_core.testing.conformance import judge
from griffin_core.testing.report import Report

PROMPT = "The import statement"
SAMPLING = Sampling(temperature=0.7, top_p=0.95, seed=0)
SAMPLE_TOKENS = 300
HALF_TOKENS = 60
"""Tokens before and after the state is saved."""
CONVERTED = "bfloat16"


def sample(model: Model, output: Output) -> dict[str, Any]:
    """Stream one continuation of the prompt."""
    output.say(PROMPT, end="")
    run = service.begin(model, PROMPT, max_new_tokens=SAMPLE_TOKENS, sampling=SAMPLING, lively=True, keep_state=False)
    for (piece,) in run:
        output.say(piece, end="")
    output.say()
    made = run.results[0]
    rate = len(made.tokens) / run.seconds if run.seconds else None
    return {"prompt": PROMPT, "text": made.text, "tokens_per_second": rate, "sampling": asdict(SAMPLING)}


def continuation(checkpoint: Path, backend: str, path: Path) -> dict[str, Any]:
    """Generate in one go; then half of it, save, load into a fresh model, and go on: both must be the same.

    Args:
        path: the state file to write.
    """
    model = api.load(checkpoint, backend=backend)
    whole = service.generate(model, PROMPT, max_new_tokens=2 * HALF_TOKENS, sampling=SAMPLING)[0]
    half = service.generate(model, PROMPT, max_new_tokens=HALF_TOKENS, sampling=SAMPLING)[0]
    if half.session is None or half.finish_reason != "length":
        return {"same": False, "reason": f"the sample ended after {len(half.tokens)} tokens ({half.finish_reason})"}
    size = state_file.save_state(path, half.session, SAMPLING, model.digest)
    fresh = api.load(checkpoint, backend=backend)
    saved = state_file.load_state(path)
    session = saved.session(fresh.engine(), fresh.digest)
    rest = service.generate(fresh, None, session=session, max_new_tokens=HALF_TOKENS, sampling=saved.sampling)[0]
    return {
        "same": half.tokens + rest.tokens == whole.tokens,
        "state_bytes": size,
        "tokens_read": half.session.positions[0],
        "before": half.text,
        "after": rest.text,
        "in_one_go": whole.text,
    }


def verification(backend: str, output: Output) -> Report:
    """Judge every kernel of the backend against the reference."""
    reports = []
    for name in dict.fromkeys(record.name for record in registry.kernels(backend)):
        reports.append(judge(name, backend=backend, progress=lambda subject: output.say(f"  {subject}")))
    first, *others = reports
    return sum(others, start=first)


def kernel_rows(report: Report) -> list[list[object]]:
    """One row per kernel: subject, properties, failures, cases, the closest call in units of its bound."""
    rows = []
    for subject in dict.fromkeys(record.subject for record in report.records):
        records = [r for r in report.records if r.subject == subject and r.status != "skipped"]
        failed = [r.property for r in records if r.status == "failed"]
        closest = max((r.ratio for r in records), default=0.0)
        cases = sum(r.cases for r in records)
        rows.append([subject, len(records), ", ".join(failed) or "none", cases, round(closest, 3)])
    return rows


def conversion(checkpoint: Path, out: Path, backend: str) -> dict[str, Any]:
    """Convert to bfloat16, load the result, and compare sizes and the prompt's score."""
    made = api.convert(checkpoint, out, dtype=CONVERTED)
    before, after = (sum(open_checkpoint(d).sizes.values()) for d in (checkpoint, out))
    scores = [api.load(d, backend=backend).score(_TEXT).bits_per_byte for d in (checkpoint, out)]
    return {
        "format": made.target_format,
        "dtype": CONVERTED,
        "tensors": len(made.rows()),
        "bytes_before": before,
        "bytes_after": after,
        "bits_per_byte_before": scores[0],
        "bits_per_byte_after": scores[1],
    }


_TEXT = (
    "The import statement combines two operations; it searches for the named module, then it binds the results "
    "of that search to a name in the local scope."
)
"""A text to compare two checkpoints on."""
