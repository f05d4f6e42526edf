"""The conformance kit's judgement of every kernel, on the card."""

from __future__ import annotations

import pytest

from griffin_core.testing import Case
from tests.torch.gpu.calls import RECORDS
from tests.torch.gpu.judged import (
    DECAYS,
    FUSED,
    FUSED_CASES,
    RUNNING,
    judged,
    packed_beside_eager,
    rough_gates,
    whole_kit,
)

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("key", RUNNING, ids="-".join)
def test_the_thorough_kit(key: tuple[str, str]) -> None:
    report = judged(RUNNING[key], "cuda", "thorough")
    assert report.passed, str(report)
    if key[0] != "rg_lru":  # which refuses float32
        assert all(record.refused == {} for record in report.records), str(report)


@pytest.mark.parametrize("case", FUSED_CASES, ids=str)
def test_every_property_on_cases_that_matrix_units_take(case: Case) -> None:
    whole_kit(RECORDS[FUSED], case, "cuda")


@pytest.mark.parametrize("decay", DECAYS)
def test_rough_gates_keep_the_bound_that_they_state(decay: str) -> None:
    rough_gates("cuda", decay, (3, 1037, 195))


@pytest.mark.parametrize("key", RECORDS, ids="-".join)
def test_packed_rows_are_those_of_the_eager_kernels(key: tuple[str, str]) -> None:
    packed_beside_eager(RECORDS[key], (1, 1037, 96), "cuda")
