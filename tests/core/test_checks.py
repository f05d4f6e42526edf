"""Checks of values: the message names the first culprit and where it stands."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from griffin_core.checks import check_finite, check_positions, check_tokens
from griffin_core.errors import CheckpointError, InputError
from griffin_core.presets import PRESETS

CONFIG = PRESETS["griffin-tiny"].config


def test_tokens() -> None:
    tokens = np.array([[1, 2, 3], [4, 5, 263]])
    check_tokens(CONFIG, tokens)
    for bad in (264, -1):
        tokens[1, 2] = bad
        with pytest.raises(InputError, match=rf"token id {bad} at row 1, column 2 is outside the vocabulary 0\.\.263"):
            check_tokens(CONFIG, tokens)
        check_tokens(CONFIG, tokens, np.array([[0, 1, 2], [0, 1, -1]]))
    for wrong in (np.zeros((1, 2)), np.zeros(3, int), np.zeros((1, 2), bool)):
        with pytest.raises(InputError, match=r"expected integers \[batch, time\]"):
            check_tokens(CONFIG, wrong)


@pytest.mark.parametrize(
    "row", [[0, 1, 2, 3], [0, 1, 0, 1], [-1, 0, -1, 1], [-1, -1, -1, -1], [0, 0, 0, 0], [0, -1, -1, 1]]
)
def test_legal_positions(row: list[int]) -> None:
    check_positions(np.array([row]), (1, 4))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 1, 3, 4], r"position 3 in row 1 \(token 2 .*expected 2 to continue the document"),
        ([0, 2, 1, 0], "position 2 in row 1"),
        ([0, 1, 1, 2], "position 1 in row 1"),
        ([5, 6, 7, 8], r"position 5 in row 1 \(token 0 .*expected 0 to continue"),
        ([-1, 0, -1, 2], r"position 2 in row 1 \(token 1 .*expected 1"),
        ([0, -2, 1, 2], "position -2 in row 1"),
    ],
)
def test_illegal_positions(row: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_positions(np.array([[0, 1, 2, 3], row]), (2, 4))


def test_positions_continue_a_state() -> None:
    rows = np.array([[5, 6, 0], [-1, 9, 10]])
    check_positions(rows, (2, 3), start=np.array([5, 9]))
    with pytest.raises(InputError, match=r"position 9 in row 1 .*expected 8 to continue the document, 0 to start one"):
        check_positions(rows, (2, 3), start=np.array([5, 8]))


def test_positions_shape_dtype_and_range() -> None:
    with pytest.raises(InputError, match=r"positions are int64 of shape \(1, 3\); expected integers \(1, 4\)"):
        check_positions(np.array([[0, 1, 2]]), (1, 4))
    with pytest.raises(InputError, match="positions are float64"):
        check_positions(np.zeros((1, 4)), (1, 4))
    last = 2**20 - 1
    check_positions(np.array([[last]]), (1, 1), start=np.array([last]))
    with pytest.raises(InputError, match="positions must stay below 1048576"):
        check_positions(np.array([[last, last + 1]]), (1, 2), start=np.array([last]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_weights_must_be_finite(dtype: type) -> None:
    good, bad = np.ones(4, dtype), np.array([1, np.nan, np.inf, 2], dtype)
    check_finite({"a": good})
    with pytest.raises(CheckpointError, match="weight b has 2 values that are NaN or infinite"):
        check_finite({"a": good, "b": bad})
