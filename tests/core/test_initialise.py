"""Initial weights: keyed by (seed, name), and distributed as the paper and the released code say."""

from __future__ import annotations

import numpy as np
import pytest

from griffin_core.errors import ConfigError
from griffin_core.layouts.initialise import init_param, init_params, recurrent_param_from_uniform
from griffin_core.layouts.params import param_table
from griffin_core.presets import PRESETS

CONFIG = PRESETS["griffin-tiny"].config.replace(lru_width=1024, width=256, gate_blocks=4)
ROWS = {row.name: row for row in param_table(CONFIG)}
LAYER = "model.layers.0."


def test_each_parameter_is_independent_of_the_others() -> None:
    params = init_params(CONFIG, seed=3)
    assert list(params) == list(ROWS)
    for name in reversed(list(ROWS)[::7]):
        np.testing.assert_array_equal(init_param(ROWS[name], 3), params[name])
    deeper = init_params(CONFIG.replace(num_layers=1, mlp_width=8), seed=3)
    np.testing.assert_array_equal(
        deeper[LAYER + "temporal_block.linear_x.weight"], params[LAYER + "temporal_block.linear_x.weight"]
    )
    assert all(value.dtype == np.float32 for value in params.values())


def test_seeds_names_and_layers_differ() -> None:
    name, other = (f"model.layers.{n}.temporal_block.linear_x.weight" for n in (0, 1))
    first = init_param(ROWS[name], 0)
    for draw in (init_param(ROWS[name], 1), init_param(ROWS[other], 0)):
        assert abs(np.corrcoef(first.ravel(), draw.ravel())[0, 1]) < 5 / np.sqrt(first.size)


def test_the_streams_do_not_drift() -> None:
    """A change here changes every model that was ever made from a seed."""
    draw = init_param(ROWS["model.embed_tokens.weight"], 0)
    np.testing.assert_allclose(draw[0, :3] * 16, [-1.1489437, 0.58960748, -0.09737616], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "std", "released"),
    [
        ("model.embed_tokens.weight", 256**-0.5, 256**-0.5),
        (LAYER + "temporal_block.linear_x.weight", 256**-0.5, 256**-0.5),
        (LAYER + "temporal_block.linear_out.weight", (2 / 6 / 1024) ** 0.5, (2 / 6 / 1024) ** 0.5),
        (LAYER + "temporal_block.conv_1d.weight", 0.05, 0.05),
        (LAYER + "temporal_block.rg_lru.input_gate_weight", 256**-0.5, 1024**-0.5),
        (LAYER + "mlp_block.up_proj.weight", 256**-0.5, 512**-0.5),
        (LAYER + "mlp_block.down_proj.weight", (2 / 6 / 384) ** 0.5, (2 / 6 / 384) ** 0.5),
    ],
)
def test_standard_deviations(name: str, std: float, released: float) -> None:
    for init, expected in (("paper", std), ("released", released)):
        draws = init_param(ROWS[name], 0, init)
        error = 5 * expected / np.sqrt(draws.size)  # five standard errors of the mean; of the deviation, seven
        assert abs(draws.mean()) < error
        assert abs(draws.std() - expected) < error


def test_biases_and_norms_start_at_zero() -> None:
    params = init_params(CONFIG, 0)
    zero = [name for name, value in params.items() if not value.any()]
    assert zero == [name for name in params if name.endswith(("bias", "norm.weight"))]


def test_paper_recurrence_has_a_to_the_c_uniform() -> None:
    param = init_param(ROWS[LAYER + "temporal_block.rg_lru.recurrent_param"], 0, "paper").astype(np.float64)
    a_to_the_c = np.exp(-8 * np.logaddexp(0, param))
    assert a_to_the_c.min() > 0.9 - 1e-6
    assert a_to_the_c.max() < 0.999 + 1e-6
    # uniform: the largest gap of the empirical distribution is below the 1 in 10^6 value of Kolmogorov's test
    ranks = (np.sort(a_to_the_c) - 0.9) / 0.099
    assert np.abs(ranks - (np.arange(1024) + 0.5) / 1024).max() < 2.7 / np.sqrt(1024)


def test_released_recurrence_has_a_squared_uniform() -> None:
    param = init_param(ROWS[LAYER + "temporal_block.rg_lru.recurrent_param"], 0, "released").astype(np.float64)
    squared = np.exp(-2 * np.logaddexp(0, param))
    ranks = (np.sort(squared) - 0.81) / (0.998001 - 0.81)
    assert np.abs(ranks - (np.arange(1024) + 0.5) / 1024).max() < 2.7 / np.sqrt(1024)


def test_recurrence_at_the_ends_of_the_range() -> None:
    ends = np.array([0.0, 1.0])
    np.testing.assert_allclose(np.exp(-8 * np.logaddexp(0, recurrent_param_from_uniform(ends, "paper"))), [0.9, 0.999])
    np.testing.assert_allclose(np.exp(-np.logaddexp(0, recurrent_param_from_uniform(ends, "released"))), [0.9, 0.999])
    # The paper's parameter is minus Lambda, which then lies in about [4.32, 8.99].
    np.testing.assert_allclose(-recurrent_param_from_uniform(ends, "paper"), [4.32, 8.99], atol=0.01)


def test_illegal_arguments() -> None:
    with pytest.raises(ConfigError, match=r"unknown init 'papper'; did you mean 'paper'\?"):
        init_params(CONFIG, 0, "papper")
    for seed in (-1, 1.5, True):
        with pytest.raises(ConfigError, match=r"seed=.*; expected a non-negative integer"):
            init_params(CONFIG, seed)
