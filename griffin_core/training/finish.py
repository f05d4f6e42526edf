"""The end of a run: the model as a checkpoint, its held-out figures, the loss curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from griffin_core import registry
from griffin_core.checkpoints import native
from griffin_core.layouts.params import parameter_count
from griffin_core.model import Model
from griffin_core.shapes import Array
from griffin_core.text.corpus import EMBEDDED, Corpus
from griffin_core.text.files import Document, compressed_bits_per_byte
from griffin_core.text.tokenizer import Tokenizer
from griffin_core.training import plots
from griffin_core.training.evaluate import evaluate
from griffin_core.training.rundir import RunDirectory
from griffin_core.training.spec import TrainSpec


def finish(
    run: RunDirectory,
    spec: TrainSpec,
    params: Mapping[str, Array],
    corpus: Corpus,
    tokenizer: Tokenizer,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Write ``checkpoint/``, ``loss.png`` (where matplotlib is there) and ``summary.json``; returns the summary.

    Raises:
        CheckpointError: the disk refuses.
    """
    _, held = corpus.split()
    records = run.metrics()
    steps = [record for record in records if "loss" in record]
    summary: dict[str, Any] = {
        "name": spec.name,
        "parameters": parameter_count(spec.config),
        "steps": spec.options.steps,
        "training_seconds": sum(record["seconds"] for record in steps),
        "tokens": int(sum(record["tokens"] for record in steps)),
        "final_loss": sum(record["loss"] for record in steps[-20:]) / len(steps[-20:]),
        "corpus": corpus.digest,
        "checkpoint": str(run.checkpoint),
    }
    if held:
        note("evaluating the held-out documents")
        summary |= _held_out_figures(spec, params, held, tokenizer)
    facts = {key: summary[key] for key in ("name", "steps", "corpus", "training_seconds", "tokens")}
    facts |= {"text": EMBEDDED if spec.text is None else "files", "seed": spec.seed, "options": spec.options.to_dict()}
    facts |= {"batch": spec.batch, "length": spec.length}
    facts["heldout_bits_per_byte"] = summary.get("heldout_bits_per_byte")
    native.save(run.checkpoint, spec.config, params, tokenizer.files(), {"training": facts}, overwrite=True)
    if plots.available():
        plots.loss_curve(records, run.plot)
        summary["plot"] = str(run.plot)
    run.write_summary(summary)
    return summary


def _held_out_figures(
    spec: TrainSpec, params: Mapping[str, Array], held: Sequence[Document], tokenizer: Tokenizer
) -> dict[str, Any]:
    """The evaluation of the float32 weights on the held-out documents, and what gzip and xz need for them."""
    native_params = registry.load_backend(spec.backend).load_params(spec.config, params, dtype="float32")
    model = Model(
        config=spec.config,
        params=native_params,
        backend=spec.backend,
        dtype="float32",
        tokenizer=tokenizer,
        kernel=spec.kernel,
    )
    found = evaluate(model, held).to_dict()
    packed = {f"{name}_bits_per_byte": bits for name, bits in compressed_bits_per_byte(held).items()}
    return {"heldout": found, "heldout_bits_per_byte": found["bits_per_byte"], **packed}
