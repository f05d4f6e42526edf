"""The public implementations run live, where they are installed: the golden files are what they compute.

Outputs must equal the golden ones to a few roundings (another library version may sum in another order), so
that every judgement of test_golden.py holds for the running peer as well.
"""

from __future__ import annotations

from collections.abc import Callable

import golden_files as files
import golden_mlx
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
OFFICIAL = ("full", "beyond", "packed", "padded", "decode", "packed_decode", "padded_decode")
Need = Callable[[str], None]


def _same(peer: str, output: str, live: Array) -> None:
    real = files.case(output).positions >= 0
    golden = files.read(peer)[output]
    assert live.shape == golden.shape
    assert files.distance(live, golden, real) <= files.REPEATS


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_torch(need: Need, name: str) -> None:
    need("official-torch")
    _same("official-torch", name, golden_official.run_torch(CONFIG, files.weights(), files.case(name)))


@pytest.mark.prove
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_jax(need: Need, name: str) -> None:
    need("official-jax")
    _same("official-jax", name, golden_official.run_jax(CONFIG, files.weights(), files.case(name)))


@pytest.mark.parametrize("output", sorted(files.read("transformers")))
def test_transformers(need: Need, output: str) -> None:
    need("transformers")
    window = WINDOW - 1 if output.endswith("_window_minus_1") else WINDOW
    _same("transformers", output, golden_transformers.run(CONFIG, files.weights(), files.case(output), window))


@pytest.mark.parametrize("output", sorted(files.read("transformers-4")))
def test_transformers_4(need: Need, output: str) -> None:
    need("transformers-4")
    live = golden_transformers.run(CONFIG, files.weights(), files.case(output), WINDOW)
    assert np.isfinite(live).all()
    _same("transformers-4", output, live)


@pytest.mark.parametrize("output", sorted(files.read("mlx")))
def test_mlx(need: Need, output: str) -> None:
    need("mlx")
    _same("mlx", output, golden_mlx.run(CONFIG, files.weights(), files.case(output)))
