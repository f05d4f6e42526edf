"""The machine's special functions, on the card, beside float64: their errors are those that are stated."""

from __future__ import annotations

import pytest

from tests.torch.gpu import sweeps

pytestmark = pytest.mark.gpu

STRIDE = 509
"""An odd one, so that all bits of the mantissa vary: 4 million numbers of each sign."""


@pytest.mark.parametrize("function", sweeps.TRUTHS)
def test_errors_are_those_that_are_stated(function: str) -> None:
    x = sweeps.arguments(function, STRIDE)
    sweeps.largest_error(function, x, sweeps.evaluate(function, x, "cuda"), sweeps.stated()[function]["ptx"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_rounds_to_the_nearest_ties_to_even(dtype: str) -> None:
    x = sweeps.ties(dtype, 1)
    assert sweeps.wrongly_narrowed(x, sweeps.evaluate("narrow", x, "cuda", dtype), dtype) == 0
