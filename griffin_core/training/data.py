"""The order of training data: cut, shuffle, repeat, pack, batch; all of it resumable through grain."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from griffin_core.checks import PAD
from griffin_core.errors import BackendError, InputError
from griffin_core.shapes import Array
from griffin_core.training.examples import NO_LOSS, Examples

PACKING_BINS = 64
"""Rows that are filled at once; more leave less padding and mix documents of neighbouring epochs more."""

Batch = dict[str, Array]
"""tokens, targets, positions: int32 [b t]; targets -1 carry no loss, positions -1 are padding on the right."""

_FILL = {"tokens": 0, "targets": NO_LOSS, "positions": PAD}


class Batches:
    """An endless, resumable stream of packed batches.

    Every epoch holds each document once, in an order drawn from (seed, epoch). A document that is longer than a
    row is cut into pieces; where the first cut falls is drawn from (seed, epoch, document), so that epochs
    differ. Pieces are packed best-fit into rows; positions restart at 0 with each piece, and nothing is read or
    predicted across a piece's boundary. The stream is a function of its arguments alone.

    Args:
        examples: the documents.
        batch: rows b.
        length: tokens t of a row.
        seed: any integer from 0 to 2^31 - 1.

    Raises:
        InputError: a size is not positive, or the seed is out of range.
        BackendError: grain is not installed.
    """

    def __init__(self, examples: Examples, batch: int, length: int, seed: int) -> None:
        _check_sizes(batch=batch, length=length)
        if not 0 <= seed < 1 << 31:
            raise InputError(f"seed={seed!r}; expected an integer from 0 to {(1 << 31) - 1}")
        grain = _grain()
        windows = _windows(examples, length)
        cut = functools.partial(_cut, examples, windows, length, seed)
        source = grain.MapDataset.source(range(len(windows))).seed(seed).shuffle().repeat().map_with_index(cut)
        rows = _packed(grain, source.filter(_has_loss), length)
        self._iterator = iter(rows.batch(batch, drop_remainder=True))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return _plain(next(self._iterator))

    def get_state(self) -> dict[str, Any]:
        """A small JSON-able value; after ``set_state`` with it the stream goes on with the same batches."""
        state: dict[str, Any] = self._iterator.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue where ``get_state`` was taken from a stream with the same arguments."""
        self._iterator.set_state(state)


def ordered_batches(examples: Examples, batch: int, length: int) -> Iterator[Batch]:
    """Every pair of every document once, in order, packed; the last batch is filled up with padding rows.

    Raises:
        InputError: a size is not positive.
        BackendError: grain is not installed.
    """
    _check_sizes(batch=batch, length=length)
    grain = _grain()
    pieces = [
        (document, start) for document in range(len(examples)) for start in range(0, examples.pairs(document), length)
    ]
    source = grain.MapDataset.source(range(len(pieces))).map(
        lambda index: examples.piece(pieces[index][0], pieces[index][1], pieces[index][1] + length)
    )
    for rows in _packed(grain, source.filter(_has_loss), length).batch(batch):
        yield {
            name: np.concatenate([part, np.full((batch - len(part), length), _FILL[name], np.int32)])
            for name, part in _plain(rows).items()
        }


def _windows(examples: Examples, length: int) -> Array:
    """int64 [n, 2]: (document, window). A document over one row has one window more than full rows: cuts shift."""
    pairs = np.diff(examples.starts) - 1
    counts = np.where(pairs <= length, 1, -(-pairs // length) + 1)
    documents = np.repeat(np.arange(len(pairs)), counts)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.stack([documents, np.arange(len(documents)) - np.repeat(first, counts)], axis=1)


def _cut(examples: Examples, windows: Array, length: int, seed: int, index: int, window: int) -> Batch:
    """The pairs of one window in the epoch that ``index``, the place in the endless stream, belongs to."""
    document, place = (int(part) for part in windows[window])
    pairs = examples.pairs(document)
    if pairs <= length:
        return examples.piece(document, 0, pairs)
    epoch = index // len(windows)
    shift = int(np.random.default_rng((seed, epoch, document)).integers(1, length + 1))
    start = max(0, shift + (place - 1) * length)
    stop = min(pairs, shift + place * length)
    return examples.piece(document, min(start, pairs), max(stop, min(start, pairs)))


def _has_loss(piece: Batch) -> bool:
    return bool((piece["targets"] != NO_LOSS).any())


def _packed(grain: ModuleType, pieces: Any, length: int) -> Any:
    """Rows of ``length`` from pieces that fit; reading is in this thread: it costs less than a hand-over."""
    return grain.experimental.BestFitPackIterDataset(
        pieces.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)),
        length_struct=dict.fromkeys(_FILL, length),
        num_packing_bins=PACKING_BINS,
        shuffle_bins=False,
        padding_struct=_FILL,
    )


def _plain(batch: dict[str, Array]) -> Batch:
    """The three arrays, without the packer's own segment ids and positions."""
    return {name: np.ascontiguousarray(batch[name], np.int32) for name in _FILL}


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value!r}; expected a positive integer")


def _grain() -> ModuleType:
    quiet = logging.getLogger("absl")  # grain reports at import that JAX's profiler is absent
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        import grain  # type: ignore[import-untyped]
        import grain.experimental  # type: ignore[import-untyped]
    except ImportError as error:
        raise BackendError("training needs the grain library; pip install 'griffin-core[train]'") from error
    finally:
        quiet.setLevel(level)
    module: ModuleType = grain
    return module
