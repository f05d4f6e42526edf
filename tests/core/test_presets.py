"""Presets against figures from outside: exact counts, block formulas, rounded tables."""

from __future__ import annotations

import pytest

from griffin_core.config import GriffinConfig
from griffin_core.errors import ConfigError
from griffin_core.layouts.params import EMBEDDING, param_table, parameter_count
from griffin_core.presets import PRESETS, preset

SIZES = ("100m", "200m", "400m", "1b", "3b", "7b", "14b")
# Millions of parameters without the embedding, rounded as in the published comparison.
MILLIONS = {
    "mqa": (80.3, 141.7, 316.3, 1120, 2511, 5940, 11590),
    "hawk": (93.8, 173.7, 374.8, 1304, 2996, 7176, 14810),
    "griffin": (89.3, 163.0, 355.3, 1243, 2835, 6790, 13760),
}
ROUNDING = (0.05, 0.05, 0.05, 0.5, 0.5, 0.5, 5)


def without_embedding(config: GriffinConfig) -> int:
    """Counted from the block formulas, not from the table."""
    D, R, g, n, e, f = (
        config.width,
        config.lru_width,
        config.gate_blocks,
        config.num_heads,
        config.head_dim,
        config.mlp_width,
    )
    recurrent = 3 * D * R + (2 * R + D) + config.conv_width * R + R + 2 * R * R // g + 2 * R + R
    attention = D * n * e + 2 * D * e + n * e * D + D
    mlp = 3 * D * f + 2 * f + D
    kinds = config.layer_kinds
    temporal = kinds.count("recurrent") * recurrent + kinds.count("attention") * attention
    return temporal + len(kinds) * (mlp + 2 * D) + D


@pytest.mark.parametrize("name", PRESETS)
def test_counts_follow_the_block_formulas(name: str) -> None:
    config = PRESETS[name].config
    assert parameter_count(config) == without_embedding(config) + config.vocab_size * config.width


@pytest.mark.parametrize("family", MILLIONS)
@pytest.mark.parametrize("size", SIZES)
def test_counts_round_to_the_published_figures(family: str, size: str) -> None:
    config = PRESETS[f"{family}-{size}"].config
    count = sum(row.size for row in param_table(config) if row.name != EMBEDDING)
    index = SIZES.index(size)
    assert abs(count / 1e6 - MILLIONS[family][index]) <= ROUNDING[index]


@pytest.mark.parametrize(
    ("name", "total", "without", "recurrent", "attention"),
    [
        ("recurrentgemma-2b", 2_682_862_080, 2_027_502_080, 18, 8),
        ("recurrentgemma-9b", 8_579_977_216, 7_531_401_216, 26, 12),
    ],
)
def test_recurrentgemma_counts_are_exact(name: str, total: int, without: int, recurrent: int, attention: int) -> None:
    config = PRESETS[name].config
    assert parameter_count(config) == total
    assert sum(row.size for row in param_table(config) if row.name != EMBEDDING) == without
    assert (config.layer_kinds.count("recurrent"), config.layer_kinds.count("attention")) == (recurrent, attention)


@pytest.mark.parametrize(
    ("size", "layers", "recurrent"), [("100m", 12, 8), ("1b", 24, 16), ("7b", 32, 22), ("14b", 40, 27)]
)
def test_griffin_cycles_two_recurrent_one_attention(size: str, layers: int, recurrent: int) -> None:
    kinds = PRESETS[f"griffin-{size}"].config.layer_kinds
    assert len(kinds) == layers
    assert kinds.count("recurrent") == recurrent
    assert kinds[:6] == ("recurrent", "recurrent", "attention") * 2


def test_windows_and_conventions() -> None:
    assert PRESETS["griffin-1b"].config.attention_window == 1024
    assert PRESETS["mqa-1b"].config.attention_window is None
    assert PRESETS["mqa-1b"].config.has_global_attention
    released = PRESETS["recurrentgemma-2b"].config
    assert (released.attention_window, released.logits_soft_cap, released.embedding_multiplier) == (2049, 30.0, 50.5)
    assert (released.head_dim, released.gate_blocks) == (256, 10)
    assert {p.config.head_dim for name, p in PRESETS.items() if name.split("-")[-1] in SIZES[:3]} == {128}
    assert PRESETS["recurrentgemma-2b"].init == "released"
    assert PRESETS["griffin-1b"].init == "paper"


def test_unknown_preset_names_the_nearest() -> None:
    assert preset("griffin-100m") is PRESETS["griffin-100m"]
    with pytest.raises(ConfigError, match=r"unknown preset 'grifin-100m'; did you mean 'griffin-100m'\?"):
        preset("grifin-100m")
