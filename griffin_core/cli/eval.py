"""``griffin eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from griffin_core.cli.console import Output, progress


def evaluate(
    *,
    checkpoint: Path | None = None,
    text: Annotated[list[str] | None, Parameter(negative=())] = None,
    backend: str | None = None,
    kernel: str | None = None,
    dtype: str | None = None,
    no_verify: bool = False,
    json: bool = False,
) -> int:
    """Score text: bits per byte, perplexity, loss by position.

    Documents are read whole, each from its own start. What gzip -9 and
    xz -9 need for the same bytes stands beside it.

    Parameters
    ----------
    checkpoint
        Directory of a native checkpoint; default the small model of the package.
    text
        File, or glob pattern in quotes; repeat it for several. Default: the documents of this Python's own documentation that training holds out.
    backend
        Instead of GRIFFIN_BACKEND.
    kernel
        Instead of GRIFFIN_KERNEL.
    dtype
        Of weights and products; default float32.
    no_verify
        Skip hashing the checkpoint's files.
    json
        Print one JSON document with all figures.
    """  # noqa: E501 (cyclopts keeps line breaks in help)
    from griffin_core import api
    from griffin_core.text.corpus import embedded_corpus, load_corpus
    from griffin_core.text.files import compressed_bits_per_byte
    from griffin_core.training.evaluate import evaluate as run

    given = None if text is None else load_corpus(text).documents
    path = api.packaged_checkpoint() if checkpoint is None else checkpoint
    model = api.load(path, backend=backend, kernel=kernel, dtype=dtype or "float32", verify=not no_verify)
    documents = embedded_corpus().split()[1] if given is None else given  # takes seconds: last
    with progress() as bar:
        task = bar.add_task("reading", total=None, note="")
        found = run(model, documents, lambda done, total: bar.update(task, completed=done, total=total))
    compressed = compressed_bits_per_byte(documents)
    out = Output(json)
    rows = [("this model", found.bits_per_byte), ("xz -9", compressed["xz"]), ("gzip -9", compressed["gzip"])]
    out.table(("", "bits per byte"), rows)
    out.say(f"perplexity {found.perplexity:.4g} per token; {found.documents} documents, {found.text_bytes:,} bytes")
    positions = [(f"{row.start} to {row.stop - 1}", row.tokens, row.loss) for row in found.by_position]
    out.table(("position in the document", "tokens", "loss (nats)"), positions)
    out.result(
        {
            "checkpoint": path,
            "backend": model.backend,
            "text": text or "held-out documents of the embedded corpus",
            **found.to_dict(),
            **{f"{name}_bits_per_byte": bits for name, bits in compressed.items()},
        }
    )
    return 0
