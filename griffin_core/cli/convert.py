"""``griffin convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from griffin_core.cli.console import Output

if TYPE_CHECKING:
    from griffin_core.checkpoints.convert import Plan


def convert(
    src: Path,
    dst: Path,
    /,
    *,
    to: str = "native",
    dtype: str | None = None,
    max_shard_size: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    no_verify: bool = False,
    json: bool = False,
) -> int:
    """Convert a checkpoint.

    The format of the source is detected from its content. Tensors are
    streamed, so memory does not grow with the model. The destination
    appears whole or not at all.

    Parameters
    ----------
    src
        The checkpoint to read.
    dst
        The directory to make.
    to
        The format to write; for now native: another dtype, other shards.
    dtype
        float32, float16 or bfloat16; default as they are. The decay parameters stay in float32.
    max_shard_size
        Size of a file at most, such as 500MB; default 2GB.
    dry_run
        Print the plan, tensor by tensor, and write nothing.
    overwrite
        Replace a native checkpoint at the destination.
    no_verify
        Skip hashing the source's files.
    json
        Print one JSON document: the plan, and the files that were written.
    """
    from griffin_core.checkpoints import convert as engine
    from griffin_core.checkpoints.native import check_target

    out = Output(json)
    check_target(dst.absolute().resolve(), overwrite)
    plan = engine.plan(src, to, dtype, max_shard_size, verify=not no_verify)
    if dry_run:
        _show_plan(out, plan)
    else:
        _run(plan, dst, overwrite)
        _say_done(out, plan, dst)
    out.result(_result(plan, src, dst, dry_run))
    return 0


def _run(plan: Plan, dst: Path, overwrite: bool) -> None:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from griffin_core.checkpoints.convert import execute
    from griffin_core.cli.console import progress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with progress(*columns) as bar:
        task = bar.add_task("writing", total=plan.nbytes, note="")
        execute(plan, dst, overwrite, lambda size: bar.advance(task, size))


def _show_plan(out: Output, plan: Plan) -> None:
    files = {shard.file: f"{number} of {len(plan.shards)}" for number, shard in enumerate(plan.shards, 1)}
    rows = []
    for row in plan.rows():
        name = row["source"] if row["source"] == row["target"] else f"{row['source']} -> {row['target']}"
        dtype = row["dtype"] if row["source_dtype"] == row["dtype"] else f"{row['source_dtype']} -> {row['dtype']}"
        shape = " x ".join(map(str, row["shape"]))
        rows.append((name, row["transform"], dtype, shape, row["bytes"], files[row["shard"]]))
    out.table(("tensor", "transform", "dtype", "shape", "bytes", "file"), rows)
    out.say(_totals(plan) + "; nothing was written")


def _say_done(out: Output, plan: Plan, dst: Path) -> None:
    out.say(f"{plan.source_format} -> {plan.target_format}: {_totals(plan)} in {dst}")


def _totals(plan: Plan) -> str:
    from griffin_core.memory import human

    tensors = sum(len(shard.tensors) for shard in plan.shards)
    files = "1 file" if len(plan.shards) == 1 else f"{len(plan.shards)} files"
    return f"{tensors} tensors, {human(plan.nbytes)} in {files}, {human(plan.peak)} of memory at most"


def _result(plan: Plan, src: Path, dst: Path, dry_run: bool) -> dict[str, Any]:
    return {
        "source": src,
        "destination": dst,
        "from": plan.source_format,
        "to": plan.target_format,
        "bytes": plan.nbytes,
        "peak_bytes": plan.peak,
        "files": [shard.file for shard in plan.shards],
        "tensors": plan.rows(),
        "written": not dry_run,
    }
