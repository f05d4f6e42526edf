"""Every backend under test obeys the laws of whole models."""

from __future__ import annotations

from types import ModuleType

import pytest

from griffin_core import env
from griffin_core.testing.judging import Effort
from griffin_core.testing.laws import LAWS, Law, judge_law

PROFILE = str(env.read("GRIFFIN_TEST_PROFILE"))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_law(backend_name: str, backend: ModuleType, law: Law) -> None:
    record = judge_law(law, backend_name, backend, Effort(PROFILE))
    if law.needs and not hasattr(backend, law.needs):
        assert record.status == "skipped"
        assert record.reason == f"the {backend_name} backend has no {law.needs}"
        return
    assert record.status == "passed", f"{record.reason}\n{record.reproduce}"
    assert record.refused == {}
    assert record.ambiguous <= record.cases


@pytest.mark.prove
@pytest.mark.usefixtures("compiled_in_haste")
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_law_thoroughly(backend_name: str, backend: ModuleType, law: Law) -> None:
    record = judge_law(law, backend_name, backend, Effort("thorough", seed=1))
    assert record.status in ("passed", "skipped"), f"{record.reason}\n{record.reproduce}"
