"""Checks of values (ids, positions, rows, finiteness). They run on the host, never inside compiled code."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, InputError
from griffin_core.rotary import MAX_POSITION
from griffin_core.shapes import Array

PAD = -1
"""Position of padding: it changes no state, is attended by nobody, and its output is 0."""

_BLOCK = 1 << 20
_EXPONENT = {"float16": np.uint16(0x7C00), "bfloat16": np.uint16(0x7F80)}
"""Bits that are all set in NaN and infinity only."""


def check_tokens(config: GriffinConfig, tokens: Array, positions: Array | None = None) -> None:
    """Refuse tokens that are not integer [b t] ids of the vocabulary (padding may hold any value).

    Raises:
        InputError: naming the first bad id and where it stands.
    """
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise InputError(f"tokens are {tokens.dtype} of shape {tokens.shape}; expected integers [batch, time]")
    bad = (tokens < 0) | (tokens >= config.vocab_size)
    if positions is not None:
        bad &= positions != PAD
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"token id {tokens[row, column]} at row {row}, column {column} is outside the vocabulary "
            f"0..{config.vocab_size - 1}; use the checkpoint's own tokenizer"
        )


def check_positions(positions: Array, shape: tuple[int, ...], start: Array | None = None) -> None:
    """Refuse positions that do not step by 1 inside a document (0 starts one, -1 is padding).

    Args:
        positions: integer [b t].
        shape: the shape of the tokens they belong to.
        start: [b] positions at which each row's first document may continue, or None for a fresh state.

    Raises:
        InputError: naming the first bad position and what could have stood there.
    """
    if positions.shape != tuple(shape) or positions.dtype.kind not in "iu":
        raise InputError(
            f"positions are {positions.dtype} of shape {positions.shape}; expected integers {tuple(shape)}"
        )
    for row, values in enumerate(positions):
        real = values[values != PAD]
        expected = np.empty(len(real), np.int64)
        if len(real):
            expected[0] = 0 if start is None else start[row]
            expected[1:] = real[:-1].astype(np.int64) + 1
        bad = (real != 0) & (real != expected)
        if bad.any():
            index = int(np.argmax(bad))
            raise InputError(
                f"position {real[index]} in row {row} (token {index} of the row, padding not counted); expected "
                f"{expected[index]} to continue the document, 0 to start one, or -1 for padding"
            )
        if len(real) and real.max() >= MAX_POSITION:
            raise InputError(f"position {real.max()} in row {row}; positions must stay below {MAX_POSITION}")


def check_batch(config: GriffinConfig, batch: Mapping[str, Array]) -> tuple[dict[str, Array], int]:
    """The batch's arrays as int32, and its number of targets.

    Raises:
        InputError: an array is missing or misshapen, an id or a position is not legal, or padding stands inside a row.
    """
    arrays = {name: np.asarray(batch[name]) for name in ("tokens", "targets", "positions") if name in batch}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(shapes) < 3 or len(set(shapes.values())) > 1 or len(shapes["tokens"]) != 2:
        raise InputError(f"a batch has arrays {shapes}; expected tokens, targets and positions of one shape [b t]")
    targets, positions = arrays["targets"], arrays["positions"]
    if targets.size and not -1 <= targets.min() <= targets.max() < config.vocab_size:
        found = f"{targets.min()}..{targets.max()}"
        raise InputError(f"targets are {found}; expected ids 0..{config.vocab_size - 1}, or -1")
    check_tokens(config, arrays["tokens"], positions)
    check_positions(positions, targets.shape)
    pad = positions == PAD
    if (pad[:, :-1] & ~pad[:, 1:]).any():
        raise InputError("padding stands inside a row; a batch has it at the ends of rows only")
    return {name: array.astype(np.int32) for name, array in arrays.items()}, int((targets >= 0).sum())


def check_starts(starts: Sequence[int], batch: int, time: int) -> None:
    """Refuse ``starts`` that do not rise from 0 to the tokens of one row.

    Raises:
        InputError: naming what is wrong.
    """
    if batch != 1:
        raise InputError(f"starts is given with batch {batch}; packed sequences stand in one row (batch 1)")
    cuts = [int(start) for start in starts]
    if len(cuts) < 2 or cuts[0] != 0 or cuts[-1] != time or any(a > b for a, b in itertools.pairwise(cuts)):
        raise InputError(f"starts is {cuts}; expected it to rise from 0 to the row's {time} tokens")


def check_rows(rows: Sequence[int], batch: int, once: bool = False) -> Array:
    """int64 [n]: the rows of a state that are asked for.

    Args:
        batch: rows that the state has.
        once: refuse a row that is named twice (it is going to be replaced).

    Raises:
        InputError: naming the first row that is not legal.
    """
    index = np.asarray(rows, dtype=np.int64).reshape(-1)
    for row in index.tolist():
        if not 0 <= row < batch:
            raise InputError(f"row {row} does not exist; the state has rows 0..{batch - 1}")
    if once and len(set(index.tolist())) != len(index):
        raise InputError(f"rows {index.tolist()} name a row twice; each can be replaced once")
    return index


def expect_shape(op: str, name: str, x: Any, shape: tuple[int, ...]) -> None:
    """Refuse an argument of another shape; None is an absent one.

    Raises:
        InputError: naming the operation, the argument and both shapes.
    """
    if x is not None and tuple(x.shape) != shape:
        raise InputError(f"{op}: {name} has shape {tuple(x.shape)}; expected {shape}")


def held_after(positions: Array | None, before: Array, time: int) -> Array:
    """int [b]: tokens of its document that each row's state will hold after a call.

    Args:
        positions: int [b t]; None continues the state with ``time`` tokens.
        before: int [b], tokens that it holds now.
    """
    if positions is None:
        return np.asarray(before) + time
    pairs = zip(np.asarray(positions), np.asarray(before), strict=True)
    return np.array([row[row != PAD][-1] + 1 if (row != PAD).any() else old for row, old in pairs])


def check_capacity(capacity: int, after: Array) -> None:
    """Refuse documents that are attended globally and are longer than their state.

    Args:
        capacity: tokens that the state can hold.
        after: int [b], tokens that each row will hold.

    Raises:
        InputError: naming the first row that would hold most.
    """
    after = np.asarray(after)
    if int(after.max(initial=0)) > capacity:
        row = int(after.argmax())
        raise InputError(
            f"row {row} would hold {int(after[row])} tokens, but the state was made with capacity={capacity}; "
            "make it with more"
        )


def check_window(size: int, window: int) -> None:
    """Refuse a cache that is shorter than the window.

    Raises:
        InputError: naming both.
    """
    if size < window:
        raise InputError(f"the cache holds {size} tokens, fewer than the window of {window}; make it at least as long")


def check_finite(params: Mapping[str, Array]) -> None:
    """Refuse weights with NaN or infinity.

    Raises:
        CheckpointError: naming the first such parameter and how many of its values are not finite.
    """
    for name, value in params.items():
        bad = count_not_finite(value)
        if bad:
            raise CheckpointError(f"weight {name} has {bad} values that are NaN or infinite")


def count_not_finite(value: Array) -> int:
    """How many values are NaN or infinite; works in blocks, so that a memory-mapped array stays on disk."""
    flat = value.reshape(-1)
    return sum(_not_finite(flat[start : start + _BLOCK]) for start in range(0, flat.size, _BLOCK))


def _not_finite(values: Array) -> int:
    """Of 16-bit values by their exponent's bits, many times faster than through ml_dtypes."""
    exponent = _EXPONENT.get(values.dtype.name)
    if exponent is None:
        return int(np.count_nonzero(~np.isfinite(values)))
    return int(np.count_nonzero((values.view(np.uint16) & exponent) == exponent))
