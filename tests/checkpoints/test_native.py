"""A native checkpoint gives back what was saved, names its files' hashes, and replaces only its own kind."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from griffin_core.checkpoints import native
from griffin_core.checkpoints.manifest import digest_params, read_manifest
from griffin_core.checkpoints.shards import parse_size
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, CheckpointMismatch, ConfigError
from griffin_core.layouts.params import param_table
from griffin_core.shapes import Array
from griffin_core.text.tokenizer import ByteTokenizer

Make = Callable[..., Path]
MakeConfig = Callable[..., GriffinConfig]
MakeWeights = Callable[..., dict[str, Array]]


def assert_same(read: native.Checkpoint, saved: dict[str, Array]) -> None:
    assert list(read.params) == list(saved)
    for name, value in saved.items():
        assert read.params[name].dtype == value.dtype
        assert read.params[name].tobytes() == value.tobytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    shard=st.sampled_from([None, 1, 700, 5000, "6kB"]),
    tied=st.booleans(),
    pattern=st.sampled_from([["recurrent"], ["attention"], ["recurrent", "recurrent", "attention"]]),
)
def test_weights_come_back_bit_for_bit(
    tmp_path: Path,
    dtype: str,
    shard: int | str | None,
    tied: bool,
    pattern: list[str],
    small_config: MakeConfig,
    weights: MakeWeights,
) -> None:
    config = small_config(tie_embeddings=tied, block_pattern=pattern)
    params = weights(config, dtype)
    native.save(tmp_path / "m", config, params, max_shard_size=shard, overwrite=True)
    read = native.read(tmp_path / "m")
    assert read.config == config
    assert_same(read, params)
    assert read.digest == digest_params(params)
    assert ("lm_head.weight" in read.params) is not tied


def test_mixed_dtypes_stay_and_are_aligned(tmp_path: Path, small_config: MakeConfig, weights: MakeWeights) -> None:
    config = small_config(lru_width=27, gate_blocks=3)
    params = weights(config, "bfloat16")
    fixed = [row.name for row in param_table(config) if row.float32]
    params |= {name: params[name].astype(np.float32) for name in fixed}
    native.save(tmp_path / "m", config, params)
    read = native.read(tmp_path / "m")
    assert_same(read, params)
    assert all(value.flags.aligned for value in read.params.values())


def test_narrowing_keeps_the_decay_parameter_in_float32(
    tmp_path: Path, small_config: MakeConfig, weights: MakeWeights
) -> None:
    config = small_config()
    native.save(tmp_path / "m", config, weights(config), dtype="bfloat16")
    dtypes = {name: value.dtype.name for name, value in native.read(tmp_path / "m").params.items()}
    kept = {name for name, dtype in dtypes.items() if dtype == "float32"}
    assert kept == {f"model.layers.{n}.temporal_block.rg_lru.recurrent_param" for n in (0, 2)}
    assert set(dtypes.values()) == {"float32", "bfloat16"}


def test_shards_keep_to_the_limit_and_the_index_names_them(make: Make) -> None:
    directory = make(shard=4000)
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    read = native.read(directory)
    files = sorted(read.layout)
    assert files == [f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)]
    assert index["weight_map"] == {name: file for file, infos in read.layout.items() for name in infos}
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in read.params.values())
    for infos in read.layout.values():
        size = sum(info.nbytes for info in infos.values())
        assert size <= 4000 or len(infos) == 1


def test_the_digest_follows_values_names_and_dtypes_but_not_shards(make: Make) -> None:
    one, sharded, other, narrow = make("a"), make("b", shard=4000), make("c", seed=1), make("d", dtype="float16")
    digests = [native.read(d).digest for d in (one, sharded, other, narrow)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_the_manifest_describes_every_file(make: Make, small_config: MakeConfig) -> None:
    directory = make(shard=4000)
    manifest = read_manifest(directory)
    present = {path.name for path in directory.iterdir()} - {"manifest.json"}
    assert set(manifest.files) == present
    for name, record in manifest.files.items():
        data = (directory / name).read_bytes()
        assert (record.size, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert manifest.metadata == {"step": 7}
    assert manifest.config_sha256 == small_config().digest()


def test_equal_weights_give_equal_bytes(make: Make) -> None:
    one, two = make("a", shard=4000), make("b", shard=4000)
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}


def test_tokenizer_files_travel(make: Make) -> None:
    assert native.read(make()).tokenizer_files == ByteTokenizer().files()


@pytest.mark.parametrize(("mask", "modes"), [(0o022, (0o755, 0o644)), (0o027, (0o750, 0o640))])
def test_permissions_follow_the_umask(make: Make, mask: int, modes: tuple[int, int]) -> None:
    before = os.umask(mask)
    try:
        directory = make(shard=4000)
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == modes[0]
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {modes[1]}


def test_wrong_weights_are_refused_and_nothing_is_written(
    tmp_path: Path, small_config: MakeConfig, weights: MakeWeights
) -> None:
    config = small_config()
    good = weights(config)
    name = "model.layers.0.mlp_block.gate_proj.bias"
    without = {n: v for n, v in good.items() if n != name}
    cases: list[tuple[dict[str, Array], type[CheckpointError], str]] = [
        (without, CheckpointMismatch, f"missing: {name}"),
        ({**good, "lm_head.weight": good["model.embed_tokens.weight"]}, CheckpointMismatch, "unused: lm_head.weight"),
        ({**good, name: good[name][:-1]}, CheckpointMismatch, rf"{name} is \(31,\), expected \(32,\)"),
        ({**good, name: good[name] + np.float32("nan")}, CheckpointError, f"weight {name} has values that are NaN"),
        ({**good, name: good[name].astype(np.int8)}, CheckpointError, f"weight {name} is int8"),
        ({**good, name: good[name].astype(np.float64)}, CheckpointError, f"weight {name} is float64"),
    ]
    for params, error, words in cases:
        with pytest.raises(error, match=words):
            native.save(tmp_path / "m", config, params)
        assert list(tmp_path.iterdir()) == []


def test_wrong_options_are_refused(tmp_path: Path, small_config: MakeConfig, weights: MakeWeights) -> None:
    config = small_config()
    params = weights(config)
    with pytest.raises(ConfigError, match="unknown checkpoint dtype 'float8'; did you mean 'float32'"):
        native.save(tmp_path / "m", config, params, dtype="float8")
    with pytest.raises(CheckpointError, match=r"'\.\./x' is no tokenizer file"):
        native.save(tmp_path / "m", config, params, {"../x": b""})
    for size in (0, -1, "2 parsecs", "", "GB", True):
        with pytest.raises(ConfigError, match="shard size"):
            native.save(tmp_path / "m", config, params, max_shard_size=size)
    assert list(tmp_path.iterdir()) == []
    assert [parse_size(s) for s in (None, 5, "5", "1.5kB", "2GB", "1 MiB")] == [2 * 10**9, 5, 5, 1500, 2 * 10**9, 2**20]


def test_only_checkpoints_are_replaced_and_only_if_asked(
    make: Make, tmp_path: Path, small_config: MakeConfig, weights: MakeWeights
) -> None:
    config, new = small_config(), weights(small_config(), seed=5)
    directory = make()
    with pytest.raises(CheckpointError, match="already holds a checkpoint"):
        native.save(directory, config, new)
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"also holds 'notes\.txt', which overwriting would delete"):
        native.save(directory, config, new, overwrite=True)
    (directory / "notes.txt").unlink()
    native.save(directory, config, new, overwrite=True)
    assert_same(native.read(directory), new)
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("mine")
    with pytest.raises(CheckpointError, match="exists and is no checkpoint of this library; choose another directory"):
        native.save(home, config, new, overwrite=True)
    with pytest.raises(CheckpointError, match="a file is in the way"):
        native.save(home / "thesis.tex", config, new, overwrite=True)
    assert (home / "thesis.tex").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"model", "home"}


def test_a_checkpoint_is_replaced_by_one_made_from_itself(make: Make) -> None:
    directory = make()
    read = native.read(directory)
    before = {name: value.copy() for name, value in read.params.items()}
    native.save(directory, read.config, read.params, max_shard_size=4000, overwrite=True)
    assert_same(native.read(directory), before)


def test_links_to_the_directory_are_followed(
    make: Make, tmp_path: Path, small_config: MakeConfig, weights: MakeWeights
) -> None:
    directory = make()
    (tmp_path / "link").symlink_to(directory)
    native.save(tmp_path / "link", small_config(), weights(small_config(), seed=3), overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert_same(native.read(directory), weights(small_config(), seed=3))
