"""The parameter table: names, shapes, roles, and how differences are told."""

from __future__ import annotations

import time

import numpy as np
import pytest

from griffin_core.errors import CheckpointMismatch
from griffin_core.layouts.params import check_params, param_table
from griffin_core.presets import PRESETS

CONFIG = PRESETS["griffin-tiny"].config
TABLE = {row.name: row for row in param_table(CONFIG)}
SHAPES = {name: row.shape for name, row in TABLE.items()}


def test_names_and_shapes_of_both_kinds_of_layer() -> None:
    recurrent = {n.removeprefix("model.layers.0."): row.shape for n, row in TABLE.items() if ".layers.0." in n}
    assert recurrent == {
        "temporal_pre_norm.weight": (128,),
        "temporal_block.linear_x.weight": (192, 128),
        "temporal_block.linear_x.bias": (192,),
        "temporal_block.linear_y.weight": (192, 128),
        "temporal_block.linear_y.bias": (192,),
        "temporal_block.linear_out.weight": (128, 192),
        "temporal_block.linear_out.bias": (128,),
        "temporal_block.conv_1d.weight": (192, 1, 4),
        "temporal_block.conv_1d.bias": (192,),
        "temporal_block.rg_lru.recurrent_param": (192,),
        "temporal_block.rg_lru.input_gate_weight": (4, 48, 48),
        "temporal_block.rg_lru.input_gate_bias": (4, 48),
        "temporal_block.rg_lru.recurrent_gate_weight": (4, 48, 48),
        "temporal_block.rg_lru.recurrent_gate_bias": (4, 48),
        "channel_pre_norm.weight": (128,),
        "mlp_block.gate_proj.weight": (384, 128),
        "mlp_block.gate_proj.bias": (384,),
        "mlp_block.up_proj.weight": (384, 128),
        "mlp_block.up_proj.bias": (384,),
        "mlp_block.down_proj.weight": (128, 384),
        "mlp_block.down_proj.bias": (128,),
    }
    attention = {n.rpartition("temporal_block.")[2] for n in TABLE if ".layers.2.temporal_block" in n}
    assert attention == {"q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight", "o_proj.bias"}
    assert TABLE["model.layers.2.temporal_block.k_proj.weight"].shape == (32, 128)
    assert next(iter(TABLE)) == "model.embed_tokens.weight"
    assert list(TABLE)[-1] == "model.final_norm.weight"


def test_untied_models_have_a_head() -> None:
    rows = param_table(CONFIG.replace(tie_embeddings=False))
    assert rows[-1].name == "lm_head.weight"
    assert rows[-1].shape == (264, 128)
    assert rows[-1].decay


def test_every_row_is_consistent() -> None:
    for row in TABLE.values():
        assert len(row.axes) == len(row.shape)
        assert row.size == int(np.prod(row.shape))


def test_decay_covers_the_dense_matrices_only() -> None:
    decayed = {name.rpartition(".layers.")[2].partition(".")[2] for name, row in TABLE.items() if row.decay}
    dense = {"linear_x", "linear_y", "linear_out", "q_proj", "k_proj", "v_proj", "o_proj"}
    assert decayed == {f"temporal_block.{n}.weight" for n in dense} | {
        f"mlp_block.{n}.weight" for n in ("gate_proj", "up_proj", "down_proj")
    }
    assert {name for name, row in TABLE.items() if row.quantise} == {name for name, row in TABLE.items() if row.decay}
    assert {n.rpartition(".")[2] for n, row in TABLE.items() if row.float32} == {"recurrent_param"}


def test_check_params_accepts_the_table_and_names_differences() -> None:
    check_params(CONFIG, SHAPES)
    wrong = dict(SHAPES)
    del wrong["model.final_norm.weight"]
    wrong["model.finalnorm.weight"] = (128,)
    wrong["model.embed_tokens.weight"] = (128, 264)
    with pytest.raises(CheckpointMismatch) as caught:
        check_params(CONFIG, wrong)
    message = str(caught.value)
    assert "missing: model.final_norm.weight" in message
    assert "unused: model.finalnorm.weight (did you mean 'model.final_norm.weight'?)" in message
    assert "wrong shape: model.embed_tokens.weight is (128, 264), expected (264, 128)" in message
    assert "\n" not in message


def test_thousands_of_strange_names_are_refused_at_once() -> None:
    before = time.perf_counter()
    with pytest.raises(CheckpointMismatch, match=r"unused: .* and 99990 more$"):
        check_params(CONFIG, {**SHAPES, **{f"x{n}": (1,) for n in range(10**5)}})
    assert time.perf_counter() - before < 20.0


def test_long_lists_are_cut() -> None:
    with pytest.raises(CheckpointMismatch, match=r"missing: model\.embed_tokens.* and \d+ more$"):
        check_params(CONFIG, {})
