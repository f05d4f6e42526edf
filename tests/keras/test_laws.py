"""The laws of whole models hold for the Keras layers as they do for the backend's functions."""

from __future__ import annotations

import pytest

from griffin_core.testing.judging import Effort
from griffin_core.testing.laws import LAWS, Law, judge_law
from tests.keras.layered import layered

CHOSEN = [law for law in LAWS if law.name.split(".")[1] in ("reference", "packed", "padded", "cut", "steps")]


@pytest.mark.parametrize("law", CHOSEN, ids=lambda law: law.name)
def test_law_of_the_layers(law: Law) -> None:
    record = judge_law(law, "keras", layered(), Effort("quick"))
    assert record.status == "passed", f"{record.reason}\n{record.reproduce}"


@pytest.mark.prove
@pytest.mark.parametrize("law", [law for law in LAWS if not law.needs], ids=lambda law: law.name)
def test_law_of_the_layers_thoroughly(law: Law) -> None:
    record = judge_law(law, "keras", layered(), Effort("ci", seed=1))
    assert record.status == "passed", f"{record.reason}\n{record.reproduce}"
