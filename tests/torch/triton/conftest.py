"""Kernels in Triton's interpreter, cut into tiles small enough that a handful of tokens fills several."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("triton", reason="triton is not installed (extra triton)")

from griffin_core_torch.triton import loading, plan

SMALL = plan.Plan(rows=4, segments=2, width=16, again=2)


@pytest.fixture
def interpreted() -> Iterator[plan.Plan]:
    """Interpretation and small tiles inside the test."""
    with loading.interpreting(), plan.fixed(SMALL):
        yield SMALL
