"""The table of official names: complete, with inverses, and enough to recognise the released models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointMismatch, ConfigError
from griffin_core.layouts.official import (
    FLAX,
    TABLE,
    TORCH,
    Form,
    official_config,
    unofficial,
)
from griffin_core.layouts.params import param_table
from griffin_core.layouts.places import places, stored_table
from griffin_core.layouts.recognise import RELEASED, released_config, told_by_shapes
from griffin_core.presets import PRESETS

FORMS = pytest.mark.parametrize("form", [TORCH, FLAX], ids=["torch", "flax"])
KINDS = st.lists(st.sampled_from(["recurrent", "attention"]), min_size=1, max_size=4)


@st.composite
def configs(draw: st.DrawFn) -> GriffinConfig:
    """Configs that the official code computes."""
    heads, head_dim = draw(st.integers(1, 4)), 4 * draw(st.integers(1, 3))
    layers = draw(KINDS)
    return GriffinConfig(
        width=heads * head_dim,
        lru_width=heads * draw(st.integers(1, 9)),
        mlp_width=draw(st.integers(1, 40)),
        num_heads=heads,
        head_dim=head_dim,
        gate_blocks=heads,
        block_pattern=tuple(layers),
        num_layers=draw(st.integers(1, 6)),
        attention_window=draw(st.integers(2, 50)),
        vocab_size=draw(st.integers(1, 60)),
        logits_soft_cap=draw(st.sampled_from([None, 30.0])),
        embedding_scale=draw(st.sampled_from([None, "sqrt_width"])),
    )


@FORMS
def test_every_parameter_has_one_place(form: Form) -> None:
    config = PRESETS["recurrentgemma-tiny"].config
    found = places(config, form)
    assert [place.canonical for place in found] == [row.name for row in param_table(config)]
    assert len({(place.stored, place.half) for place in found}) == len(found)
    assert len({row.canonical for row in TABLE}) == len(TABLE)


@FORMS
@given(config=configs(), data=st.data())
@settings(max_examples=40)
def test_there_and_back_is_the_same_array(form: Form, config: GriffinConfig, data: st.DataObject) -> None:
    assert unofficial(config) == []
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    params = {row.name: rng.standard_normal(row.shape) for row in param_table(config)}
    tensors = {name: np.full(shape, np.nan) for name, shape in stored_table(config, form).items()}
    for place in places(config, form):
        place.take(tensors[place.stored])[...] = params[place.canonical]
    assert not any(np.isnan(tensor).any() for tensor in tensors.values())
    assert sum(tensor.size for tensor in tensors.values()) == sum(value.size for value in params.values())
    for place in places(config, form):
        back = place.take(tensors[place.stored])
        np.testing.assert_array_equal(back, params[place.canonical])
        part = tensors[place.stored] if place.half is None else tensors[place.stored][place.half]
        np.testing.assert_array_equal(place.transform.there(params[place.canonical]), part)
        assert np.shares_memory(back, tensors[place.stored])


@FORMS
def test_shapes_of_the_released_model(form: Form) -> None:
    table = stored_table(PRESETS["recurrentgemma-2b"].config, form)
    join = form.separator.join
    assert table[join(("embedder", "input_embedding"))] == (256_000, 2560)
    assert table[join(("blocks.0", "mlp_block", "ffw_up", "w"))] == (2, 2560, 7680)
    assert table[join(("blocks.0", "mlp_block", "ffw_up", "b"))] == (2, 1, 1, 7680)
    assert table[join(("blocks.1", "recurrent_block", "conv_1d", "w"))] == (4, 2560)
    down = (2560, 7680) if form is TORCH else (7680, 2560)
    assert table[join(("blocks.2", "mlp_block", "ffw_down", form.dense))] == down
    assert len(table) == 432
    assert len(stored_table(PRESETS["recurrentgemma-9b"].config, form)) == 628


@FORMS
@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize("padding", [0, 128])
def test_the_released_models_are_recognised(form: Form, name: str, padding: int) -> None:
    config = PRESETS[name].config
    shapes = stored_table(config.replace(vocab_size=config.vocab_size + padding), form)
    assert released_config(shapes, form) == (name, config)


@FORMS
@given(config=configs())
@settings(max_examples=40)
def test_shapes_tell_what_they_can(form: Form, config: GriffinConfig) -> None:
    fields = told_by_shapes(stored_table(config, form), form)
    known = {**config.to_dict(), "block_pattern": list(config.layer_kinds)}
    assert {name: known[name] for name in fields} == fields
    assert not {"attention_window", "logits_soft_cap", "embedding_scale"} & set(fields)
    with pytest.raises(CheckpointMismatch, match=r"no released model has .*attention_window.*give the config"):
        released_config(stored_table(config, form), form)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"embedder.input_embedding": None}, "'embedder.input_embedding' is missing"),
        ({"embedder.input_embedding": (3, 4, 5)}, "expected 2 axes"),
        ({"blocks.0.mlp_block.ffw_up.w": (3,)}, "expected 3 axes"),
    ],
)
def test_shapes_of_something_else_are_refused(change: dict[str, tuple[int, ...] | None], words: str) -> None:
    table = {**stored_table(PRESETS["recurrentgemma-tiny"].config, TORCH), **change}
    with pytest.raises(CheckpointMismatch, match=words):
        told_by_shapes({name: shape for name, shape in table.items() if shape is not None}, TORCH)


def test_layers_are_counted_from_0() -> None:
    table = stored_table(PRESETS["recurrentgemma-tiny"].config, TORCH)
    for shapes in ({}, {n: s for n, s in table.items() if not n.startswith("blocks.1.")}):
        with pytest.raises(CheckpointMismatch, match="counted from 0"):
            told_by_shapes(shapes, TORCH)


def test_what_the_official_code_cannot_compute_is_named() -> None:
    config = PRESETS["griffin-100m"].config.replace(attention_window=None, conv_width=3, tie_embeddings=False)
    assert [phrase.split("=")[0] for phrase in unofficial(config)] == [
        "gate_blocks",
        "attention_window",
        "conv_width",
        "tie_embeddings",
    ]
    with pytest.raises(ConfigError, match=r"no place for lm_head\.weight"):
        places(config, TORCH)


def test_the_official_window_counts_keys_before_the_query() -> None:
    arguments = official_config(PRESETS["recurrentgemma-2b"].config)
    assert arguments["attention_window_size"] == 2048
    assert arguments["block_types"][:3] == ["RECURRENT", "RECURRENT", "ATTENTION"]
    assert official_config(PRESETS["griffin-official-7b"].config)["logits_soft_cap"] == 0.0
