"""``griffin convert``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from griffin_core.cli.console import Output

if TYPE_CHECKING:
    from griffin_core.checkpoints.plan import Plan


def convert(
    src: str,
    dst: Path,
    /,
    *,
    to: str = "native",
    dtype: str | None = None,
    max_shard_size: str | None = None,
    config: str | None = None,
    window_convention: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    no_verify: bool = False,
    json: bool = False,
) -> int:
    """Convert a checkpoint.

    The format of the source is detected from its content. Tensors are
    streamed, so memory does not grow with the model. The destination
    appears whole or not at all; a conversion that was killed goes on
    where it stopped when the command is given again.

    Parameters
    ----------
    src
        The checkpoint to read: a directory, a torch or a Keras file; hub:OWNER/NAME downloads one from the Hub.
    dst
        The directory to make.
    to
        The format to write: native, huggingface, recurrentgemma-flax, recurrentgemma-torch or keras.
    dtype
        float32, float16 or bfloat16; default as they are. The decay parameters keep theirs, but in huggingface.
    max_shard_size
        Size of a safetensors file at most, such as 500MB; default 2GB.
    config
        A preset's name or a JSON file, for an official checkpoint with no config beside it.
    window_convention
        What the window in a config.json of another program counts: official (keys before the query) or hf.
    dry_run
        Print the plan, tensor by tensor, and write nothing.
    overwrite
        Replace a checkpoint of this library at the destination.
    no_verify
        Skip hashing the source's files.
    json
        Print one JSON document: the plan, and the files that were written.
    """
    from griffin_core.checkpoints import convert as engine
    from griffin_core.checkpoints.target import check_target

    out = Output(json)
    check_target(dst.absolute().resolve(), overwrite)
    options = {"config": config, "window_convention": window_convention}
    scratch = None if dry_run else engine.scratch_directory(dst)
    with _bar("checking") as advance:
        plan = engine.plan(src, to, dtype, max_shard_size, not no_verify, advance, scratch=scratch, **options)
    if not dry_run:
        with _bar("writing", plan.nbytes) as advance:
            engine.execute(plan, dst, overwrite, advance)
    for note in plan.checkpoint.notes:
        out.say(f"note: {note}")
    if dry_run:
        _show_plan(out, plan)
    else:
        _say_done(out, plan, dst)
    out.result(_result(plan, src, dst, dry_run))
    return 0


@contextlib.contextmanager
def _bar(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar in bytes on a terminal; gives what advances it."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from griffin_core.cli.console import progress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with progress(*columns) as bar:
        task = bar.add_task(what, total=total, note="")
        yield lambda size: bar.advance(task, size)


def _show_plan(out: Output, plan: Plan) -> None:
    files = {file: f"{number} of {len(plan.files)}" for number, file in enumerate(plan.files, 1)}
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

    tensors = len(plan.draft.tensors)
    files = plan.files[0] if len(plan.files) == 1 else f"{len(plan.files)} files"
    disk = f", {human(plan.scratch)} on disk for a while" if plan.scratch else ""
    return f"{tensors} tensors, {human(plan.nbytes)} in {files}, {human(plan.peak)} of memory at most{disk}"


def _result(plan: Plan, src: str, dst: Path, dry_run: bool) -> dict[str, Any]:
    return {
        "source": src,
        "destination": dst,
        "from": plan.source_format,
        "to": plan.target_format,
        "bytes": plan.nbytes,
        "peak_bytes": plan.peak,
        "scratch_bytes": plan.scratch,
        "notes": list(plan.checkpoint.notes),
        "files": plan.files,
        "tensors": plan.rows(),
        "written": not dry_run,
    }
