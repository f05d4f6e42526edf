"""The public implementations run live, where they are installed: the golden files are what they compute.

Outputs must equal the golden ones to a few roundings (another library version may sum in another order), so
that every judgement of test_golden.py holds for the running peer as well.
"""

from __future__ import annotations

import golden_files as files
import golden_official
import golden_transformers
import numpy as np
import pytest
from golden_cases import CONFIG, WINDOW

from griffin_core.shapes import Array

pytestmark = [
    pytest.mark.peers,
    # Peers warn about their own dependencies; that is theirs to mend.
    pytest.mark.filterwarnings("ignore"),
]
REPEATS = 5e-6
"""A quarter of what two implementations may differ by."""
OFFICIAL = ("full", "beyond", "packed", "padded", "decode", "packed_decode", "padded_decode")


def _same(peer: str, output: str, live: Array) -> None:
    real = files.case(output).positions >= 0
    golden = files.read(peer)[output]
    assert live.shape == golden.shape
    assert files.distance(live, golden, real) <= REPEATS


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_torch(name: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("recurrentgemma.torch", exc_type=ImportError)
    _same("official-torch", name, golden_official.run_torch(CONFIG, files.weights(), files.case(name)))


@pytest.mark.prove
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_jax(name: str) -> None:
    pytest.importorskip("recurrentgemma.jax", exc_type=ImportError)
    _same("official-jax", name, golden_official.run_jax(CONFIG, files.weights(), files.case(name)))


@pytest.mark.parametrize("output", sorted(files.read("transformers")))
def test_transformers(output: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers", minversion="5.6")
    window = WINDOW - 1 if output.endswith("_window_minus_1") else WINDOW
    _same("transformers", output, golden_transformers.run(CONFIG, files.weights(), files.case(output), window))


def test_transformers_4() -> None:
    transformers = pytest.importorskip("transformers")
    if not transformers.__version__.startswith("4."):
        pytest.skip(f"transformers {transformers.__version__} is not version 4")
    live = golden_transformers.run(CONFIG, files.weights(), files.case("beyond"), WINDOW)
    assert np.isfinite(live).all()
    _same("transformers-4", "beyond", live)
