"""The architecture record: what it accepts, refuses and derives."""

from __future__ import annotations

import dataclasses
import json

import pytest

from griffin_core.config import GriffinConfig, from_dict, from_json
from griffin_core.errors import ConfigError
from griffin_core.presets import PRESETS

SMALL = GriffinConfig(
    width=16,
    lru_width=24,
    mlp_width=48,
    num_heads=2,
    head_dim=8,
    gate_blocks=3,
    block_pattern=("recurrent", "recurrent", "attention"),
    num_layers=5,
    attention_window=7,
    vocab_size=11,
)


def test_derived_values() -> None:
    assert SMALL.layer_kinds == ("recurrent", "recurrent", "attention", "recurrent", "recurrent")
    assert SMALL.block_width == 8
    assert SMALL.embedding_multiplier == 1.0
    assert not SMALL.has_global_attention
    assert SMALL.replace(attention_window=None).has_global_attention
    assert not SMALL.replace(attention_window=None, num_layers=2).has_global_attention


@pytest.mark.parametrize(("width", "multiplier"), [(2560, 50.5), (4096, 64.0), (128, 11.3125), (1, 1.0)])
def test_embedding_scale_is_rounded_to_bfloat16(width: int, multiplier: float) -> None:
    assert SMALL.replace(width=width, embedding_scale="sqrt_width").embedding_multiplier == multiplier


@pytest.mark.parametrize("config", [SMALL, *(preset.config for preset in PRESETS.values())])
def test_json_round_trip(config: GriffinConfig) -> None:
    again = from_json(config.to_json())
    assert again == config
    assert again.digest() == config.digest()
    assert from_dict(config.to_dict()) == config


def test_digest_tells_configs_apart_and_does_not_drift() -> None:
    digests = {preset.config.digest() for preset in PRESETS.values()}
    assert len(digests) == len({preset.config for preset in PRESETS.values()}) == len(PRESETS)
    # Decode states and checkpoints on disk carry this value; a change breaks them.
    assert SMALL.digest() == "0ef310bcd32769fc681672e87bac09f49b1fc71a5af934524c4a1971c2c57d24"


def test_every_field_is_frozen() -> None:
    for field in dataclasses.fields(SMALL):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(SMALL, field.name, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width=0; expected an integer of at least 1"),
        ({"width": 16.0}, "width=16.0; expected an integer"),
        ({"num_layers": True}, "num_layers=True; expected an integer"),
        ({"vocab_size": "11"}, "vocab_size='11'; expected an integer"),
        ({"conv_width": 1}, "conv_width=1; expected an integer of at least 2"),
        ({"attention_window": 0}, "attention_window=0; expected an integer of at least 1"),
        ({"attention_window": 2**32}, "attention_window=4294967296; expected an integer of at most 2147483648"),
        ({"num_layers": 10**9}, "num_layers=1000000000; expected an integer of at most 10000"),
        ({"vocab_size": 10**9}, "vocab_size=1000000000; expected an integer of at most 268435456"),
        ({"gate_blocks": 5}, "gate_blocks=5 does not divide lru_width=24; choose a divisor"),
        ({"head_dim": 6}, "head_dim=6 is not a multiple of 4"),
        ({"block_pattern": "recurrent"}, "block_pattern='recurrent'; expected a list"),
        ({"block_pattern": []}, r"block_pattern=\[\]; expected a list"),
        ({"block_pattern": 3}, "block_pattern=3; expected a list"),
        ({"block_pattern": ["recurent"]}, "block_pattern has 'recurent'; did you mean 'recurrent'?"),
        ({"logits_soft_cap": 0}, "logits_soft_cap=0; expected a positive number, or null"),
        ({"logits_soft_cap": float("nan")}, "logits_soft_cap=nan; expected"),
        ({"logits_soft_cap": True}, "logits_soft_cap=True; expected"),
        ({"logits_soft_cap": 10**400}, "logits_soft_cap=10+; expected"),
        ({"embedding_scale": "sqrt"}, "embedding_scale='sqrt'; expected null or 'sqrt_width'"),
        ({"tie_embeddings": 1}, "tie_embeddings=1; expected true or false"),
    ],
)
def test_illegal_values_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        SMALL.replace(**changes)


def test_unknown_and_missing_keys_are_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown config key 'num_head'; did you mean 'num_heads'\?"):
        from_dict({**SMALL.to_dict(), "num_head": 2})
    with pytest.raises(ConfigError, match="unknown config key 'zzz'; known: attention_window, "):
        from_dict({**SMALL.to_dict(), "zzz": 2})
    fields = SMALL.to_dict()
    del fields["width"], fields["num_heads"], fields["conv_width"]
    with pytest.raises(ConfigError, match="config lacks width, num_heads; every key without a default"):
        from_dict(fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config is not JSON"),
        ("[1]", "config is a JSON list; expected an object"),
        (b'{"width\xff": 1}', "config is not JSON: 'utf-8' codec can't decode byte 0xff"),
        ("[" * 100_000, "config is not JSON: "),
    ],
)
def test_text_that_is_not_a_config(text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_json(text)


def test_defaults_are_filled_in_from_json() -> None:
    fields = {k: v for k, v in SMALL.to_dict().items() if k not in ("conv_width", "tie_embeddings")}
    assert from_json(json.dumps(fields)) == SMALL
