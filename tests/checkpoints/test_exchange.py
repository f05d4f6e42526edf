"""``config.json`` says what other readers of the family need, and only what they can express."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from griffin_core.checkpoints import native
from griffin_core.checkpoints.hf_config import inexpressible
from griffin_core.config import GriffinConfig
from griffin_core.presets import PRESETS
from griffin_core.shapes import Array
from griffin_core.text.tokenizer import ByteTokenizer

Make = Callable[..., Path]
MakeConfig = Callable[..., GriffinConfig]
MakeWeights = Callable[..., dict[str, Array]]


def test_config_json_has_the_keys_of_every_reader(
    tmp_path: Path, exchange_config: MakeConfig, weights: MakeWeights
) -> None:
    config = exchange_config()
    native.save(tmp_path / "m", config, weights(config, "bfloat16"), ByteTokenizer().files())
    fields = json.loads((tmp_path / "m/config.json").read_text())
    assert fields["griffin"] == config.to_dict()
    assert fields["model_type"] == "recurrent_gemma"
    assert fields["architectures"] == ["RecurrentGemmaForCausalLM"]
    assert (fields["attention_window_size"], fields["intermediate_size"]) == (9, 64)
    assert (fields["rope_theta"], fields["partial_rotary_factor"]) == (10_000.0, 0.5)
    assert fields["rope_parameters"] == {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    assert (fields["head_dim"], fields["num_key_value_heads"], fields["attention_bias"]) == (8, 1, False)
    assert fields["embeddings_scale_by_sqrt_dim"] is True
    assert fields["block_types"] == ["recurrent", "attention"]
    assert "_block_types" not in fields  # readers that alias the two refuse both
    assert fields["dtype"] == fields["torch_dtype"] == "bfloat16"
    assert (fields["pad_token_id"], fields["eos_token_id"], fields["bos_token_id"]) == (256, 257, 258)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"lru_width": 24, "gate_blocks": 2}, "lru_width=24"),
        ({"gate_blocks": 4}, "gate_blocks=4"),
        ({"head_dim": 4}, "head_dim=4"),
        ({"attention_window": None}, "attention_window=null"),
        ({"logits_soft_cap": None}, "logits_soft_cap=null"),
        ({"embedding_scale": None}, "embedding_scale=None"),
        ({"tie_embeddings": False}, "tie_embeddings=false"),
        ({"block_pattern": ["recurrent"]}, "block_pattern=['recurrent']"),
        ({"num_layers": 1}, "block_pattern=['recurrent', 'attention']"),
    ],
)
def test_model_type_is_ours_when_a_field_cannot_be_said(
    tmp_path: Path, change: dict[str, object], field: str, exchange_config: MakeConfig, weights: MakeWeights
) -> None:
    config = exchange_config(**change)
    assert [phrase for phrase in inexpressible(config) if not phrase.startswith(field)] == []
    native.save(tmp_path / "m", config, weights(config))
    fields = json.loads((tmp_path / "m/config.json").read_text())
    assert fields["model_type"] == "griffin"
    assert "architectures" not in fields
    assert native.read(tmp_path / "m").config == config


def test_the_presets_that_the_exchange_config_can_say() -> None:
    fits = {name for name, preset in PRESETS.items() if not inexpressible(preset.config)}
    assert fits == {"recurrentgemma-2b", "recurrentgemma-9b", "recurrentgemma-tiny"}


@pytest.mark.peers
def test_transformers_loads_it(tmp_path: Path, exchange_config: MakeConfig, weights: MakeWeights) -> None:
    transformers = pytest.importorskip("transformers")
    config = exchange_config()
    params = weights(config)
    native.save(tmp_path / "m", config, params, ByteTokenizer().files(), max_shard_size=8000)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path / "m"), output_loading_info=True)
    assert type(model).__name__ == "RecurrentGemmaForCausalLM"
    assert not any(info.values())
    state = model.state_dict()
    for name, value in params.items():
        np.testing.assert_array_equal(state[name].numpy(), value)
    assert (model.config.attention_window_size, model.config.bos_token_id) == (9, 258)
