"""How well a model predicts documents: bits per byte, perplexity, and loss by position. Any backend.

Each document is read whole, from its own start, with the state carried from piece to piece; memory does not
grow with its length (global attention aside). Every token of the text and the final end-of-text token is
charged; a prompt is read but not charged. Bits per byte divide by the UTF-8 bytes of the texts, so the figure
compares between tokenizers, and with what a compressor needs for the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from griffin_core.checks import PAD
from griffin_core.errors import InputError
from griffin_core.model import Model
from griffin_core.protocol import compiles_shapes
from griffin_core.shapes import Array
from griffin_core.text.files import Document
from griffin_core.training.examples import NO_LOSS, Examples, tokenise

ROWS = 16
"""Documents read side by side."""
PIECE = 256
"""Tokens of each that are read at once."""
LOGIT_BYTES = 1 << 25
"""Float32 logits held at once."""
FIRST_BIN = 16
"""Positions in the first bin of the loss by position; each further bin is as wide as all before it."""


@dataclass(frozen=True)
class PositionLoss:
    """Mean loss of the tokens whose input stands at a position from ``start`` to ``stop - 1``, in nats."""

    start: int
    stop: int
    tokens: int
    loss: float


@dataclass(frozen=True)
class Evaluation:
    """The verdict on a set of documents.

    Attributes:
        documents: how many.
        tokens: tokens charged, end-of-text tokens included.
        text_bytes: UTF-8 bytes of the texts.
        nats: summed negative log-probability of the tokens.
        by_position: mean loss by distance from the document's start.
    """

    documents: int
    tokens: int
    text_bytes: int
    nats: float
    by_position: tuple[PositionLoss, ...]

    @property
    def loss(self) -> float:
        """Mean nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp of the loss; infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 709.0 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for one byte of text."""
        return self.nats / math.log(2.0) / self.text_bytes

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict of all figures."""
        return {
            "bits_per_byte": self.bits_per_byte,
            "perplexity": self.perplexity,
            "loss": self.loss,
            "tokens": self.tokens,
            "bytes": self.text_bytes,
            "documents": self.documents,
            "loss_by_position": [vars(row) for row in self.by_position],
        }


def evaluate(
    model: Model, documents: Sequence[Document], on_progress: Callable[[int, int], None] | None = None
) -> Evaluation:
    """Read the documents with the model.

    Args:
        on_progress: called with (tokens charged so far, tokens in all).

    Raises:
        InputError: the model has no tokenizer, its vocabulary is smaller than the tokenizer's, or no document
            has a token to predict.
    """
    if model.tokenizer is None:
        raise InputError("this checkpoint has no tokenizer, so text cannot be scored; add a tokenizer.json to it")
    examples = tokenise(documents, model.tokenizer)
    if int(examples.tokens.max()) >= model.config.vocab_size:
        raise InputError(f"the tokenizer has ids beyond the model's vocabulary of {model.config.vocab_size}")
    longest = max(examples.pairs(index) for index in range(len(examples)))
    bins = max(1, math.ceil(math.log2(max(1, longest / FIRST_BIN))) + 1)
    nats, counts = np.zeros(bins), np.zeros(bins, np.int64)
    for positions, losses in _losses(model, examples):
        place = np.ceil(np.log2(np.maximum(positions + 1, FIRST_BIN) / FIRST_BIN)).astype(np.int64)
        nats += np.bincount(place, losses, bins)
        counts += np.bincount(place, minlength=bins)
        if on_progress is not None:
            on_progress(int(counts.sum()), examples.token_count)
    rows = [
        PositionLoss(0 if i == 0 else FIRST_BIN << (i - 1), FIRST_BIN << i, int(counts[i]), float(nats[i] / counts[i]))
        for i in range(bins)
        if counts[i]
    ]
    return Evaluation(len(examples), int(counts.sum()), examples.text_bytes, float(nats.sum()), tuple(rows))


def _losses(model: Model, examples: Examples) -> Iterator[tuple[Array, Array]]:
    """(positions, losses) of the charged tokens, piece by piece; documents of like length go side by side."""
    order = sorted(range(len(examples)), key=lambda index: (-examples.pairs(index), index))
    exact = not compiles_shapes(model.module)
    for first in range(0, len(order), ROWS):
        rows = order[first : first + ROWS]
        lengths = [examples.pairs(index) for index in rows]
        height = len(rows) if exact else _standard(len(rows), ROWS)
        room = lengths[0] if exact else -(-lengths[0] // PIECE) * PIECE
        state = model.init_state(height, capacity=room if model.config.has_global_attention else None)
        for start in range(0, lengths[0], PIECE):
            active = sum(length > start for length in lengths)
            rows, lengths = rows[:active], lengths[:active]  # the longest come first: those that have ended go
            needed = active if exact else _standard(active, ROWS)
            if needed < height:
                height, state = needed, model.module.take(state, range(needed))
            width = min(PIECE, lengths[0] - start)
            batch = _piece(examples, rows, start, height, width if exact else _standard(width, PIECE))
            x, state = _read(model, batch, state)
            yield from _charged(model, batch, x)


def _standard(size: int, most: int) -> int:
    """The next of ``most``, a quarter of it, a sixteenth, ...: few shapes, where each is compiled."""
    while most // 4 >= max(size, 1):
        most //= 4
    return most


def _piece(examples: Examples, rows: Sequence[int], start: int, height: int, width: int) -> dict[str, Array]:
    """The next ``width`` pairs of each row, padded to [height width]; positions go on where the last piece ended."""
    batch = {name: np.full((height, width), fill, np.int32) for name, fill in _FILL.items()}
    for row, index in enumerate(rows):
        piece = examples.piece(index, start, start + width)
        piece["positions"] += start
        for name, values in piece.items():
            batch[name][row, : len(values)] = values
    return batch


_FILL = {"tokens": 0, "targets": NO_LOSS, "positions": PAD}


def _read(model: Model, batch: dict[str, Array], state: Any) -> tuple[Any, Any]:
    tokens, positions = (model.module.from_numpy(batch[name], device=model.device) for name in ("tokens", "positions"))
    x, state = model.module.hidden(
        model.config, model.params, tokens, positions=positions, state=state, padding="right", kernel=model.kernel
    )
    return x, state


def _charged(model: Model, batch: dict[str, Array], x: Any) -> Iterator[tuple[Array, Array]]:
    rows, width = batch["tokens"].shape
    step = max(1, LOGIT_BYTES // (4 * rows * model.config.vocab_size))
    for start in range(0, width, step):
        part = slice(start, start + step)
        targets = batch["targets"][:, part]
        real = targets != NO_LOSS
        if real.any():
            logits = model.module.to_numpy(model.module.logits(model.config, model.params, x[:, part]))
            yield batch["positions"][:, part][real].astype(np.int64), _cross_entropy(logits[real], targets[real])


def _cross_entropy(logits: Array, targets: Array) -> Array:
    """float64 [n]: -log softmax of float32 logits [n v] at targets [n]."""
    peak = logits.max(axis=1, keepdims=True)
    log_partition = np.log(np.exp(logits - peak).sum(axis=1, dtype=np.float64)) + peak[:, 0]
    return np.asarray(log_partition - logits[np.arange(len(targets)), targets], np.float64)
