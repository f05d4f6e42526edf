"""``griffin train``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from griffin_core.cli.console import Output
from griffin_core.errors import InputError

if TYPE_CHECKING:
    from griffin_core.training.run import Outcome

INTERRUPTED = 130
"""Exit code after Ctrl-C; the run can be resumed."""

_DEFAULT_PRESET = "griffin-tiny"


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Begin:
    """What is trained, on what.

    Parameters
    ----------
    preset
        Start from random weights of this shape; default griffin-tiny, byte-level.
    init
        Start from this native checkpoint instead (fine-tuning).
    text
        File, or glob pattern in quotes; repeat it for several. Lines of .jsonl files are {"text"} or {"prompt", "completion"}, and prompts carry no loss. Default: this Python's own documentation.
    tokenizer
        Directory with a tokenizer.json; default bytes, or that of --init.
    """  # noqa: E501 (cyclopts keeps line breaks in help)

    preset: str | None = None
    init: Path | None = None
    text: Annotated[list[str] | None, Parameter(negative=())] = None
    tokenizer: Path | None = None


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Schedule:
    """How it is trained.

    Parameters
    ----------
    steps
        Steps of the whole run; the learning rate falls to a tenth until then.
    batch
        Rows of a step.
    length
        Tokens of a row; longer documents are cut.
    lr
        Peak learning rate; default 0.003, or 0.0003 with --init.
    warmup
        Steps of linear warm-up; default a twentieth of the steps.
    weight_decay
        Decoupled, on the matrices.
    clip
        Largest global gradient norm; 0 is off.
    optimizer
        adamw, or schedule-free: no falling rate, and the model is an average of the run (JAX backend).
    seed
        Of the initial weights and of the data's order.
    """

    steps: int = 1000
    batch: int = 8
    length: int = 256
    lr: float | None = None
    warmup: int | None = None
    weight_decay: float = 0.1
    clip: float = 1.0
    optimizer: str = "adamw"
    seed: int = 0


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Engine:
    """Where and how precisely.

    Parameters
    ----------
    backend
        Instead of GRIFFIN_BACKEND.
    kernel
        Instead of GRIFFIN_KERNEL.
    threads
        Of the backend; default its own choice.
    dtype
        Of products: float32 or bfloat16; weights and moments stay float32.
    activation_checkpointing
        Keep only each layer's input and compute the rest again: less memory, more time.
    """

    backend: str | None = None
    kernel: str | None = None
    threads: int | None = None
    dtype: str = "float32"
    activation_checkpointing: bool = False


_BEGIN, _SCHEDULE, _ENGINE = Begin(), Schedule(), Engine()


def train(
    *,
    begin: Begin = _BEGIN,
    out: Path | None = None,
    resume: Path | None = None,
    schedule: Schedule = _SCHEDULE,
    checkpoint_every: int = 100,
    eval_every: int = 0,
    engine: Engine = _ENGINE,
    json: bool = False,
) -> int:
    """Train a model, or fine-tune one.

    Five in a hundred documents are held out, chosen by their hash; the
    final figure is bits per byte on them. The run's directory holds
    metrics.jsonl, saved states, and at the end a checkpoint and a plot.
    Ctrl-C saves and stops; --resume goes on, also after a kill.

    Parameters
    ----------
    begin
        What is trained, on what.
    out
        Directory of the run, new or empty; default runs/ and the preset's name.
    resume
        Continue the run in this directory; nothing else is needed.
    schedule
        How it is trained.
    checkpoint_every
        Steps between saved states; 0 saves only at the end.
    eval_every
        Steps between evaluations on held-out rows; 0 evaluates only at the end.
    engine
        Where and how precisely.
    json
        Print one JSON document with the final figures; progress goes to stderr.
    """
    from griffin_core.training import run as runs
    from griffin_core.training.progress import ProgressReporter

    reporter = ProgressReporter(sys.stderr)
    if resume is not None:
        if (begin, schedule, engine, out) != (_BEGIN, _SCHEDULE, _ENGINE, None):
            raise InputError("--resume continues a run as it was begun; give no other settings with it")
        outcome = runs.resume(resume, reporter)
    else:
        spec, tokenizer = _spec(begin, schedule, engine, checkpoint_every, eval_every)
        outcome = runs.start(out or Path("runs") / spec.name, spec, tokenizer, reporter)
    return _report(outcome, Output(json))


def _spec(begin: Begin, schedule: Schedule, engine: Engine, checkpoint_every: int, eval_every: int) -> Any:
    """The run's spec and its tokenizer."""
    from griffin_core import registry
    from griffin_core.schedules import TrainerOptions
    from griffin_core.training import spec as specs

    if begin.init is not None:
        if begin.preset is not None or begin.tokenizer is not None:
            raise InputError("--init brings its own shape and tokenizer; give no --preset and no --tokenizer with it")
        start, tokenizer = specs.start_from_checkpoint(begin.init)
    else:
        tokenizer = specs.load_tokenizer_or_bytes(begin.tokenizer)
        start = specs.start_from_preset(begin.preset or _DEFAULT_PRESET, tokenizer)
    rate = schedule.lr if schedule.lr is not None else 3e-3 if begin.init is None else 3e-4
    options = TrainerOptions(
        steps=schedule.steps,
        learning_rate=rate,
        warmup=max(0, schedule.steps) // 20 if schedule.warmup is None else schedule.warmup,
        weight_decay=schedule.weight_decay,
        clip_norm=schedule.clip,
        compute_dtype=engine.dtype,
        checkpoint_activations=engine.activation_checkpointing,
        optimizer=schedule.optimizer,
    )
    spec = specs.TrainSpec(
        **start,
        options=options,
        text=None if begin.text is None else tuple(begin.text),
        batch=schedule.batch,
        length=schedule.length,
        seed=schedule.seed,
        checkpoint_every=checkpoint_every,
        eval_every=eval_every,
        backend=registry.choose_backend(engine.backend),
        kernel=engine.kernel,
        threads=engine.threads,
    )
    return spec, tokenizer


def _report(outcome: Outcome, out: Output) -> int:
    summary = outcome.summary
    if summary is None:
        out.say(f"stopped after step {outcome.step}; go on with: griffin train --resume {outcome.directory}")
        out.result({"directory": outcome.directory, "step": outcome.step, "finished": False})
        return INTERRUPTED
    if "heldout_bits_per_byte" in summary:
        rows = [
            (name, float(summary[f"{key}_bits_per_byte"]))
            for name, key in (("this model", "heldout"), ("xz -9", "xz"), ("gzip -9", "gzip"))
        ]
        out.table(("held-out text", "bits per byte"), rows)
    out.say(f"checkpoint: {summary['checkpoint']}")
    out.say(f"generate from it: griffin generate --checkpoint {summary['checkpoint']} --prompt 'The '")
    out.result({"directory": outcome.directory, "step": outcome.step, "finished": True, **summary})
    return 0
