"""mlx-lm's golden outputs are those of the float64 reference with two of its constants changed, and nothing else.

mlx-lm multiplies embeddings by sqrt(width) itself, where the released models take its bfloat16 value, and its
blocks' norms add 1e-5 where they add 1e-6. With both changed the reference computes what mlx-lm computes, so what
mlx-lm differs by from the reference proper is what these two make in the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import golden_files as files
import numpy as np
import pytest
from golden_cases import CONFIG, WINDOW, digest
from golden_mlx import BLOCK_EPS

from griffin_core import reference
from griffin_core.config import NORM_EPS, GriffinConfig
from griffin_core.layouts.params import FINAL_NORM
from griffin_core.reference import model, norms
from griffin_core.shapes import Array

OUTPUTS = sorted(files.read("mlx"))
UNROUNDED = CONFIG.width**0.5
Changed = Callable[..., Array]


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Changed:
    """A function of (case, epsilon of the blocks' norms, factor on embeddings): the reference's float64 logits."""

    def logits(name: str, eps: float, multiplier: float, window: int = WINDOW) -> Array:
        config, weights, case = CONFIG.replace(attention_window=window), files.weights(), files.case(name)

        def rms_norm(x: Array, scale: Array) -> Array:
            return norms.rms_norm(x, scale, NORM_EPS if scale is weights[FINAL_NORM] else eps)

        with monkeypatch.context() as patch:
            patch.setattr(model, "rms_norm", rms_norm)
            patch.setattr(GriffinConfig, "embedding_multiplier", property(lambda _: multiplier))
            return reference.forward(config, weights, case.tokens, case.positions)[0]

    return logits


def _largest(a: Array, b: Array) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())


def test_the_golden_file_holds_single_documents_of_these_weights() -> None:
    assert files.metadata("mlx")["weights_sha256"] == digest(files.weights())
    assert OUTPUTS == ["beyond", "chunked", "decode", "full"]
    for name in OUTPUTS:
        case, golden = files.case(name), files.read("mlx")[name]
        assert (case.positions == np.arange(case.positions.shape[1])).all()
        assert (golden.dtype, golden.shape) == (np.float32, (*case.tokens.shape, CONFIG.vocab_size))
    assert files.case("beyond").tokens.shape[1] > 4 * WINDOW


def test_the_fixture_changes_nothing_by_itself(changed: Changed) -> None:
    same = changed("full", NORM_EPS, CONFIG.embedding_multiplier)
    np.testing.assert_array_equal(same, files.truth("full"))
    assert CONFIG.embedding_multiplier != UNROUNDED


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_reference_with_both_constants_changed_is_mlx(name: str, changed: Changed) -> None:
    assert _largest(files.read("mlx")[name], changed(name, BLOCK_EPS, UNROUNDED)) <= files.AGREES


@pytest.mark.parametrize("name", OUTPUTS)
def test_mlx_differs_from_the_reference_by_no_more_than_the_constants_make(name: str, changed: Changed) -> None:
    """|mlx - reference| <= |changed reference - reference| + 2e-5 for every logit, and some logit shows it."""
    truth = files.truth(name)
    made = np.abs(changed(name, BLOCK_EPS, UNROUNDED) - truth)
    differs = np.abs(files.read("mlx")[name].astype(np.float64) - truth)
    assert (differs <= made + files.AGREES).all()
    assert differs.max() > 10 * files.AGREES


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize(
    ("eps", "multiplier"), [(BLOCK_EPS, CONFIG.embedding_multiplier), (NORM_EPS, UNROUNDED)], ids=["eps", "scale"]
)
def test_neither_constant_alone_explains_mlx(name: str, eps: float, multiplier: float, changed: Changed) -> None:
    assert _largest(files.read("mlx")[name], changed(name, eps, multiplier)) > files.AGREES


@pytest.mark.parametrize(("window", "first"), [(WINDOW - 1, WINDOW - 1), (WINDOW + 1, WINDOW)])
def test_mlx_counts_the_keys_of_a_window_as_we_do(window: int, first: int, changed: Changed) -> None:
    """One key fewer or more, and the logits part from the first token that sees other keys."""
    golden, other = files.read("mlx")["beyond"], changed("beyond", BLOCK_EPS, UNROUNDED, window)
    assert _largest(golden[:, :first], other[:, :first]) <= files.AGREES
    assert _largest(golden[:, first:], other[:, first:]) > files.DIFFERS
