"""The one comparison: it raises with everything needed to act on it, and grants exactly the bound."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from griffin_core.testing.tolerance import Ledger, Mismatch, assert_close, assert_same

U = 2.0**-24


def close(got: np.ndarray, expected: np.ndarray, bound: float, dtype: str = "float32") -> Ledger:
    ledger = Ledger()
    assert_close(got, expected, bound, dtype=dtype, what="y", call="scan of a case", ledger=ledger)
    return ledger


def test_it_names_index_values_error_bound_and_call() -> None:
    expected = np.zeros((2, 3))
    got = expected.astype(np.float32)
    got[1, 2] = 0.5
    with pytest.raises(Mismatch) as caught:
        close(got, expected, 0.25)
    assert str(caught.value) == ("y[1, 2] is 0.5, expected 0; off by 0.5, 2 times the bound 0.25; in scan of a case")


def test_the_bound_is_inclusive_and_nothing_more() -> None:
    expected = np.ones(1)
    ledger = close(np.array([1.25], np.float32), expected, 0.25)
    assert ledger.ratio == pytest.approx(1.0)
    with pytest.raises(Mismatch):
        close(np.array([1.25 + 2.0**-20], np.float32), expected, 0.25)


def test_it_returns_nothing() -> None:
    value = np.ones(1, np.float32)
    assert assert_close(value, value.astype(np.float64), 0.0, dtype="float32", what="y", call="f") is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (np.zeros((3, 2), np.float32), "y has shape (3, 2), expected (2, 3)"),
        (np.zeros((2, 3), np.float16), "y is float16, expected float32"),
        (np.zeros((2, 3), ml_dtypes.bfloat16), "y is bfloat16, expected float32"),
        (np.full((2, 3), np.nan, np.float32), "y[0, 0] is nan, expected a finite number (6 such)"),
        (np.full((2, 3), -np.inf, np.float32), "y[0, 0] is -inf, expected a finite number (6 such)"),
    ],
)
def test_shape_dtype_and_finiteness_come_first(got: np.ndarray, message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        close(got, np.zeros((2, 3)), 1e9)
    assert message in str(caught.value)


@pytest.mark.parametrize(("dtype", "u"), [("bfloat16", 2.0**-8), ("float16", 2.0**-11)])
def test_a_narrow_dtype_may_round_once(dtype: str, u: float) -> None:
    expected = np.array([1.0 + u])  # halfway between two neighbours: rounding loses a whole u
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
    assert close(np.array([1.0], kind), expected, 0.0, dtype).ratio == 0.0
    with pytest.raises(Mismatch):
        close(np.array([1.0 - 2 * u], kind), expected, 0.0, dtype)


def test_float32_rounding_is_part_of_the_bound() -> None:
    with pytest.raises(Mismatch):
        close(np.array([1.0], np.float32), np.array([1.0 + U]), 0.0)
    close(np.array([1.0], np.float32), np.array([1.0 + U]), U)


def test_same_means_the_same_values() -> None:
    x = np.array([0.0, np.nan, 1.0], np.float32)
    assert_same(np.array([-0.0, np.nan, 1.0], np.float32), x, what="y", call="f")
    with pytest.raises(Mismatch, match=r"y\[2\] is 1.0000001, expected exactly 1.0 \(1 of 3 elements differ\)"):
        assert_same(np.nextafter(x, np.float32(2), where=[False, False, True], out=x.copy()), x, what="y", call="f")
    with pytest.raises(Mismatch, match="is float64, expected float32"):
        assert_same(x.astype(np.float64), x, what="y", call="f")
