"""The table of Keras names: complete, with inverses, and enough to recognise the released models."""

from __future__ import annotations

import numpy as np
import pytest

from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointMismatch, ConfigError
from griffin_core.layouts.keras import KERAS, TABLE, keras_places
from griffin_core.layouts.params import param_table
from griffin_core.layouts.places import places, stored_table
from griffin_core.layouts.recognise import RELEASED, released_config, told_by_shapes
from griffin_core.presets import PRESETS

CONFIG = GriffinConfig(
    width=12,
    lru_width=18,
    mlp_width=10,
    num_heads=3,
    head_dim=8,
    gate_blocks=2,
    block_pattern=("recurrent", "attention"),
    num_layers=3,
    attention_window=None,
    vocab_size=30,
    conv_width=3,
    tie_embeddings=False,
)
"""What no other format than the native one can hold."""


def test_every_parameter_has_one_place() -> None:
    found = keras_places(CONFIG)
    assert found == places(CONFIG, KERAS)
    assert [place.canonical for place in found] == [row.name for row in param_table(CONFIG)]
    assert len({place.dataset for place in found}) == len({place.variable for place in found}) == len(found)
    assert len({row.canonical for row in TABLE}) == len(TABLE)


def test_names_are_those_of_attributes_and_variables() -> None:
    found = {place.canonical: (place.dataset, place.variable) for place in keras_places(CONFIG)}
    block = "temporal_block"
    assert found["model.embed_tokens.weight"] == ("embedding/vars/0", "embedding/embeddings")
    assert found["model.final_norm.weight"] == ("final_norm/vars/scale", "final_norm/scale")
    assert found["lm_head.weight"] == ("head/vars/weight", "head/weight")
    for canonical, key, variable in (
        ("channel_pre_norm.weight", "channel_pre_norm/vars/scale", "channel_pre_norm/scale"),
        (f"{block}.linear_out.weight", f"{block}/linear_out/vars/0", f"{block}/linear_out/kernel"),
        (f"{block}.linear_out.bias", f"{block}/linear_out/vars/1", f"{block}/linear_out/bias"),
        (f"{block}.conv_1d.weight", f"{block}/conv_1d/vars/weight", f"{block}/conv_1d/weight"),
        (f"{block}.rg_lru.recurrent_param", f"{block}/rg_lru/vars/recurrent_param", f"{block}/rg_lru/recurrent_param"),
    ):
        assert found[f"model.layers.2.{canonical}"] == (f"layer_2/{key}", f"layer_2/{variable}")


def test_there_and_back_is_the_same_array() -> None:
    rng = np.random.default_rng(0)
    table = stored_table(CONFIG, KERAS)
    for place, row in zip(keras_places(CONFIG), param_table(CONFIG), strict=True):
        value = rng.standard_normal(row.shape)
        stored = place.transform.there(value)
        assert stored.shape == place.shape(row.shape) == table[place.dataset]
        assert np.shares_memory(stored, value)
        np.testing.assert_array_equal(place.take(stored), value)
    assert table["head/vars/weight"] == (30, 12)
    assert table["layer_0/temporal_block/linear_x/vars/0"] == (12, 18)
    assert table["layer_0/temporal_block/conv_1d/vars/weight"] == (18, 1, 3)
    assert table["embedding/vars/0"] == (30, 12)


def test_what_is_no_parameter_has_no_place() -> None:
    with pytest.raises(ConfigError, match=r"no place for model\.layers\.0\.mlp_block\.bias"):
        KERAS.place_of("model.layers.0.mlp_block.bias")


@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize("padding", [0, 128])
def test_the_released_models_are_recognised(name: str, padding: int) -> None:
    config = PRESETS[name].config
    shapes = stored_table(config.replace(vocab_size=config.vocab_size + padding), KERAS)
    assert released_config(shapes, KERAS) == (name, config)


def test_shapes_tell_what_they_can() -> None:
    fields = told_by_shapes(stored_table(CONFIG, KERAS), KERAS)
    known = {**CONFIG.to_dict(), "block_pattern": list(CONFIG.layer_kinds)}
    assert {name: known[name] for name in fields} == fields
    assert set(known) - set(fields) == {"attention_window", "logits_soft_cap", "embedding_scale", "tie_embeddings"}
    with pytest.raises(CheckpointMismatch, match=r"no released model has .*attention_window.*give the config"):
        released_config(stored_table(CONFIG, KERAS), KERAS)
