"""Hugging Face directories of other programs: every variant in use is read, what is not of the family is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from griffin_core.checkpoints.convert import convert
from griffin_core.checkpoints.manifest import digest_params
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, CheckpointMismatch, ConfigError
from griffin_core.shapes import Array
from tests.checkpoints import hf_samples

MakeConfig = Callable[..., GriffinConfig]
MakeWeights = Callable[..., dict[str, Array]]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def foreign(tmp_path: Path, exchange_config: MakeConfig, weights: MakeWeights) -> Callable[..., Path]:
    """Write a foreign directory with changed config fields and tensors."""

    def write(
        change: dict[str, Any] | None = None,
        tensors: dict[str, Array] | None = None,
        drop: tuple[str, ...] = (),
        **kinds: Any,
    ) -> Path:
        config = exchange_config()
        fields = {**hf_samples.fields(config, **kinds), **(change or {})}
        kept = {name: value for name, value in fields.items() if name not in drop}
        return hf_samples.write(tmp_path / "hf", kept, {**weights(config, "bfloat16"), **(tensors or {})})

    return write


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("blocks", ["block_types", "_block_types"])
def test_configs_of_both_versions(
    foreign: Callable[..., Path],
    version: int,
    blocks: str,
    exchange_config: MakeConfig,
    weights: MakeWeights,
) -> None:
    read = open_checkpoint(foreign(version=version, blocks=blocks))
    assert (read.format, read.config) == ("huggingface", exchange_config())
    assert read.digest == digest_params(weights(exchange_config(), "bfloat16"))
    assert read.manifest is None
    assert len(read.notes) == 1
    assert "a query sees 9" in read.notes[0]


def test_the_window_convention_is_the_users_to_choose(foreign: Callable[..., Path], tmp_path: Path) -> None:
    directory = foreign()
    assert open_checkpoint(directory, window_convention="official").config.attention_window == 9
    assert open_checkpoint(directory, window_convention="hf").config.attention_window == 8
    with pytest.raises(ConfigError, match="unknown window convention 'HF'; known: hf, official"):
        open_checkpoint(directory, window_convention="HF")
    convert(directory, tmp_path / "native", window_convention="hf")
    assert open_checkpoint(tmp_path / "native").config.attention_window == 8
    with pytest.raises(ConfigError, match="needs no convention; leave it out"):
        open_checkpoint(tmp_path / "native", window_convention="hf")
    convert(directory, tmp_path / "ours", to="huggingface")
    assert json.loads((tmp_path / "ours/config.json").read_text())["attention_window_size"] == 9
    with pytest.raises(ConfigError, match="section 'griffin', which says the window exactly"):
        open_checkpoint(tmp_path / "ours", window_convention="hf")


def test_a_stored_projection_that_repeats_the_embedding(
    foreign: Callable[..., Path], tmp_path: Path, exchange_config: MakeConfig, weights: MakeWeights
) -> None:
    table = weights(exchange_config(), "bfloat16")[EMBEDDING]
    read = open_checkpoint(foreign(tensors={HEAD: table}))
    assert HEAD not in read.params
    assert any(note.startswith(f"{HEAD} equals") for note in read.notes)
    convert(tmp_path / "hf", tmp_path / "new", to="huggingface")
    assert HEAD not in load_file(tmp_path / "new/model.safetensors")
    other = table.copy()
    other[3, 2] += 1
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        open_checkpoint(foreign(tensors={HEAD: other}))
    untied = open_checkpoint(foreign({"tie_word_embeddings": False}, {HEAD: other}))
    assert untied.config == exchange_config(tie_embeddings=False)
    np.testing.assert_array_equal(untied.params[HEAD], other)
    with pytest.raises(CheckpointMismatch, match=r"missing: lm_head\.weight"):
        open_checkpoint(foreign({"tie_word_embeddings": False}))


def test_rows_that_pad_the_vocabulary(
    foreign: Callable[..., Path], exchange_config: MakeConfig, weights: MakeWeights
) -> None:
    table = weights(exchange_config(), "bfloat16")[EMBEDDING]
    padded = np.concatenate([table, np.ones((24, 16), table.dtype)])
    for tensors in ({EMBEDDING: padded}, {EMBEDDING: padded, HEAD: padded}):
        read = open_checkpoint(foreign(tensors=tensors))
        np.testing.assert_array_equal(read.params[EMBEDDING], table)
        assert any("has 288 rows; those beyond the vocabulary of 264" in note for note in read.notes)
    with pytest.raises(CheckpointMismatch, match=r"embed_tokens\.weight is \(200, 16\), expected \(264, 16\)"):
        open_checkpoint(foreign(tensors={EMBEDDING: table[:200]}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gemma2"}, "model_type 'gemma2'; expected 'recurrent_gemma'"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"num_hidden_layers": "6"}, "lacks num_hidden_layers, or has no number"),
        ({"num_key_value_heads": 2}, "num_key_value_heads=2; models of this family have 1"),
        ({"num_key_value_heads": None}, "num_key_value_heads=None"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps=1e-05"),
        ({"hidden_activation": "silu"}, "hidden_activation='silu'"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"rope_theta": 5e5}, "rope_theta=500000.0"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0}}, "rope_type='yarn'"),
        ({"rope_parameters": {"partial_rotary_factor": 1.0}}, "partial_rotary_factor=1.0"),
        ({"intermediate_size": 63}, "intermediate_size=63; expected both branches' sum"),
        ({"block_types": ["recurrent", "mamba"]}, "block_pattern has 'mamba'"),
        ({"_block_types": ["attention"]}, "block_types and _block_types differ"),
        ({"attention_window_size": "2048"}, "attention_window_size='2048'; expected a number"),
        ({"attention_window_size": True}, "expected a number"),
        ({"num_attention_heads": 3}, "gate_blocks=3 does not divide lru_width=16"),
    ],
)
def test_what_is_not_of_the_family_is_named(foreign: Callable[..., Path], change: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        open_checkpoint(foreign(change))
    assert "\n" not in str(caught.value)
    assert "hf" in str(caught.value)


def test_our_section_and_the_keys_beside_it_must_agree(foreign: Callable[..., Path], tmp_path: Path) -> None:
    convert(foreign(), tmp_path / "ours", to="huggingface")
    (tmp_path / "ours/manifest.json").unlink()
    read = open_checkpoint(tmp_path / "ours")
    assert (read.format, read.notes) == ("huggingface", ())
    file = tmp_path / "ours/config.json"
    text = json.loads(file.read_text())
    file.write_text(json.dumps({**text, "attention_window_size": 5}))
    with pytest.raises(CheckpointError, match="attention_window_size is 5, but the section 'griffin' says 9"):
        open_checkpoint(tmp_path / "ours")
    file.write_text(json.dumps({**text, "model_type": "griffin"}))
    with pytest.raises(CheckpointError, match="native checkpoint that has no manifest: it is unfinished"):
        open_checkpoint(tmp_path / "ours")


def test_pickled_weights_are_not_opened(foreign: Callable[..., Path]) -> None:
    directory = foreign()
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, a pickle, which is not opened"):
        open_checkpoint(directory)


def test_links_may_lead_into_a_hub_cache_and_nowhere_else(foreign: Callable[..., Path], tmp_path: Path) -> None:
    directory = foreign()
    snapshot, blobs = tmp_path / "cache/snapshots/abc", tmp_path / "cache/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", "model.safetensors"):
        (directory / name).rename(blobs / f"hash-of-{name}")
        (snapshot / name).symlink_to(Path("../../blobs") / f"hash-of-{name}")
    assert open_checkpoint(snapshot).format == "huggingface"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("config.json", "model.safetensors"):
        (elsewhere / name).symlink_to(blobs / f"hash-of-{name}")
    with pytest.raises(CheckpointError, match=r"config\.json is a link to .*, outside its directory"):
        open_checkpoint(elsewhere)
