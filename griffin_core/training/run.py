"""The training loop as a service: start or resume a run, keep its directory continuable at every moment."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from griffin_core import memory, registry
from griffin_core.errors import InputError, KernelNotSupported, TrainingError, nearest
from griffin_core.layouts.params import param_table, parameter_count
from griffin_core.protocol import capability
from griffin_core.shapes import Array
from griffin_core.text.corpus import Corpus, load_corpus
from griffin_core.text.tokenizer import Tokenizer, from_files, read_files
from griffin_core.training import finish
from griffin_core.training.data import Batch, Batches, ordered_batches
from griffin_core.training.examples import Examples, tokenise
from griffin_core.training.rundir import MetricsLog, RunDirectory
from griffin_core.training.spec import TrainSpec, initial_params

EVAL_BATCHES = 64
"""Batches of held-out rows that an evaluation during training reads at most."""


class Reporter(Protocol):
    """What a run tells while it goes."""

    def begin(self, spec: TrainSpec, parameters: int, step: int) -> None:
        """Training starts after ``step`` steps already taken."""

    def step(self, record: dict[str, float]) -> None:
        """One step was taken; the record is its line of the metrics."""

    def note(self, text: str) -> None:
        """Something worth a line happened."""

    def end(self) -> None:
        """No more steps follow."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its directory, the step, and the final figures (None when it was interrupted)."""

    directory: Path
    step: int
    summary: dict[str, Any] | None


def start(out: str | Path, spec: TrainSpec, tokenizer: Tokenizer, reporter: Reporter) -> Outcome:
    """Begin a run and train to its end, or to an interrupt.

    Args:
        out: directory, new or empty.
        spec: patterns in ``spec.text`` are replaced by the files they name.

    Raises:
        InputError: ``out`` is taken, or there is no text.
        BackendError: the backend cannot train.
        NotEnoughMemory: the run does not fit.
        TrainingError: the loss became NaN or infinite; the last saved state stands.
    """
    kernel = registry.requested_kernel(spec.kernel)  # kept, so that no variable changes a run when it is resumed
    _require_trainer(replace(spec, kernel=kernel))
    corpus = load_corpus(spec.text)
    spec = replace(spec, text=None if isinstance(corpus.source, str) else corpus.source, kernel=kernel)
    run = RunDirectory(out)
    run.create(spec, corpus.digest, tokenizer.files())
    with run.locked():
        return _train(run, spec, corpus, tokenizer, reporter)


def resume(out: str | Path, reporter: Reporter) -> Outcome:
    """Continue a run from its last saved state; a finished run only gives its figures again.

    Raises:
        InputError: there is no run in ``out``, its text has changed, or another process trains there.
        CheckpointError: the last saved state is damaged; the file is named.
        TrainingError: as in ``start``.
    """
    run = RunDirectory(out)
    spec, digest = run.read()
    with run.locked():
        summary = run.summary()
        if summary is not None:
            return Outcome(run.path, spec.options.steps, summary)
        corpus = load_corpus(spec.text)
        if corpus.digest != digest:
            source = "this Python's documentation" if spec.text is None else ", ".join(spec.text)
            raise InputError(f"the text of this run has changed ({source}); resume it with the text it began with")
        _require_trainer(spec)
        tokenizer = from_files(read_files(run.tokenizer))
        if tokenizer is None:
            raise InputError(f"{run.tokenizer} holds no tokenizer.json; copy it back")
        return _train(run, spec, corpus, tokenizer, reporter)


def _train(run: RunDirectory, spec: TrainSpec, corpus: Corpus, tokenizer: Tokenizer, reporter: Reporter) -> Outcome:
    documents, held_documents = corpus.split()
    batches = Batches(tokenise(documents, tokenizer), spec.batch, spec.length, spec.seed)
    trainer = _make_trainer(run, spec, batches)
    held = tokenise(held_documents, tokenizer) if held_documents and spec.eval_every else None
    reporter.begin(spec, parameter_count(spec.config), trainer.step_number)
    with _stop_requests() as asked, contextlib.closing(MetricsLog(run.metrics_file)) as log:
        try:
            while trainer.step_number < spec.options.steps and not asked.is_set():
                _one_step(run, spec, trainer, batches, held, log, reporter)
                if asked.is_set() or _is_due(spec.checkpoint_every, trainer.step_number, spec.options.steps):
                    log.sync()
                    run.save_state(trainer, batches.get_state())
        finally:
            reporter.end()
    if trainer.step_number < spec.options.steps:
        return Outcome(run.path, trainer.step_number, None)
    summary = finish.finish(run, spec, trainer.params(), corpus, tokenizer, reporter.note)
    return Outcome(run.path, trainer.step_number, summary)


def _make_trainer(run: RunDirectory, spec: TrainSpec, batches: Batches) -> Any:
    """The trainer where the last saved state stood, the data stream and the metrics with it."""
    run.clean()
    saved = run.steps()
    blank = {row.name: np.zeros(row.shape, np.float32) for row in param_table(spec.config)} if saved else None
    trainer = make_trainer(spec, blank)
    if saved:
        batches.set_state(run.load_state(saved[-1], trainer))
    run.cut_metrics(trainer.step_number)
    return trainer


def make_trainer(spec: TrainSpec, params: dict[str, Array] | None = None) -> Any:
    """The backend's trainer for a run, on given or on its initial weights."""
    trainer = capability(spec.backend, registry.load_backend(spec.backend), "Trainer")
    extra = {name: value for name in ("kernel", "threads") if (value := getattr(spec, name)) is not None}
    return trainer(spec.config, initial_params(spec) if params is None else params, spec.options, **extra)


def _one_step(
    run: RunDirectory,
    spec: TrainSpec,
    trainer: Any,
    batches: Batches,
    held: Examples | None,
    log: MetricsLog,
    reporter: Reporter,
) -> None:
    began = time.perf_counter()
    figures = trainer.step(next(batches))
    seconds = time.perf_counter() - began
    if not all(math.isfinite(value) for value in figures.values()):
        raise TrainingError(_diverged(run, trainer.step_number + 1, figures))
    step = trainer.step_number
    record = {"step": step, **figures, "seconds": seconds, "tokens_per_second": figures["tokens"] / seconds}
    log.write(record)
    reporter.step(record)
    if held is not None and step < spec.options.steps and step % spec.eval_every == 0:
        bits = heldout_rows(trainer, held, spec)
        log.write({"step": step, "heldout_bits_per_byte_in_rows": bits})
        reporter.note(f"step {step}: held-out {bits:.3f} bits per byte in rows of {spec.length}")


def heldout_rows(trainer: Any, held: Examples, spec: TrainSpec) -> float:
    """Bits per byte on held-out documents cut into rows as in training, at most ``EVAL_BATCHES`` batches.

    Higher than the final figure, which reads whole documents: a row knows nothing of what came before it.
    """
    nats, count = 0.0, 0
    rows: Iterator[Batch] = ordered_batches(held, spec.batch, spec.length)
    for _, batch in zip(range(EVAL_BATCHES), rows, strict=False):
        more, targets = trainer.evaluate(batch)
        nats, count = nats + more, count + targets
    return nats / count * held.token_count / held.text_bytes / math.log(2.0)


def _is_due(every: int, step: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)


def _diverged(run: RunDirectory, step: int, figures: dict[str, float]) -> str:
    saved = run.steps()
    kept = f"the state of step {saved[-1]} is kept in {run.state(saved[-1])}" if saved else "nothing was saved yet"
    return (
        f"loss is {figures['loss']:g} and gradient norm {figures['grad_norm']:g} at step {step}, learning rate "
        f"{figures['learning_rate']:g}; {kept}; start again with a lower --lr or a longer --warmup"
    )


def _require_trainer(spec: TrainSpec) -> None:
    trainer = capability(spec.backend, registry.load_backend(spec.backend), "Trainer")
    known = [registry.AUTO, *(record.name for record in registry.kernels(spec.backend))]
    if spec.kernel not in known:
        raise KernelNotSupported(f"{spec.backend} has no kernel {spec.kernel!r}; {nearest(str(spec.kernel), known)}")
    options = spec.options
    if hasattr(trainer, "check"):  # a refusal comes before anything is written
        trainer.check(options, spec.threads)
    needed = memory.training(
        spec.config, spec.batch, spec.length, options.compute_dtype, options.checkpoint_activations
    )
    memory.require(needed.total, f"training {spec.name} with batch {spec.batch} and length {spec.length}")


@contextlib.contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event set by the first interrupt or termination signal; a second interrupt stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def request(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
