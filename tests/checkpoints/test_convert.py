"""Conversion keeps bytes, streams, plans without writing, and names what it cannot do."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from griffin_core.checkpoints import native
from griffin_core.checkpoints.convert import convert, plan
from griffin_core.checkpoints.detect import detect
from griffin_core.checkpoints.manifest import read_manifest
from griffin_core.errors import CheckpointError, ConfigError
from griffin_core.layouts.params import param_table
from griffin_core.shapes import DTYPES

Make = Callable[..., Path]
COUNTER = itertools.count()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=5)
@given(
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    shard=st.sampled_from([None, 1, 5000]),
    back=st.sampled_from([None, 3000]),
)
def test_there_and_back_is_byte_identical(make: Make, dtype: str, shard: int | None, back: int | None) -> None:
    source = make(f"source-{next(COUNTER)}", dtype=dtype, shard=back)
    there, again = source.with_name("there"), source.with_name("again")
    convert(source, there, max_shard_size=shard, overwrite=True)
    convert(there, again, max_shard_size=back, overwrite=True)
    one, two = native.read(source), native.read(again)
    assert one.digest == native.read(there).digest == two.digest
    weight_files = [file for file in one.manifest.files if file.endswith(".safetensors")]
    assert weight_files == [file for file in two.manifest.files if file.endswith(".safetensors")]
    for file in [*weight_files, "config.json", "tokenizer.json"]:
        assert (source / file).read_bytes() == (again / file).read_bytes()


def test_the_dtype_changes_by_rounding_once(make: Make, tmp_path: Path) -> None:
    source = make()
    convert(source, tmp_path / "narrow", dtype="bfloat16")
    before, after = native.read(source), native.read(tmp_path / "narrow")
    for name, value in before.params.items():
        target = DTYPES["float32" if name.endswith("recurrent_param") else "bfloat16"]
        assert after.params[name].dtype == target
        np.testing.assert_array_equal(after.params[name], value.astype(target))
    assert after.config == before.config
    assert after.tokenizer_files == before.tokenizer_files
    assert after.manifest.metadata == {"step": 7, "converted_from": "native"}


def test_a_plan_is_what_is_then_written(make: Make, tmp_path: Path) -> None:
    source = make()
    made = plan(source, dtype="float16", max_shard_size=4000)
    assert not (tmp_path / "new").exists()
    seen: list[int] = []
    convert(source, tmp_path / "new", dtype="float16", max_shard_size=4000, progress=seen.append)
    read = native.read(tmp_path / "new")
    assert sum(seen) == made.nbytes == sum(value.nbytes for value in read.params.values())
    rows = {row["target"]: row for row in made.rows()}
    for file, infos in read.layout.items():
        for name, info in infos.items():
            row = rows.pop(name)
            assert (row["shard"], row["dtype"], tuple(row["shape"])) == (file, info.dtype, info.shape)
            assert row["bytes"] == info.nbytes
            assert row["transform"] == ("none" if info.dtype == "float32" else "cast")
    assert rows == {}


def test_a_damaged_source_leaves_nothing(make: Make, tmp_path: Path) -> None:
    source = make()
    weights = source / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 64
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match="does not match its SHA-256"):
        convert(source, tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_values_too_large_for_the_dtype_leave_nothing(make: Make, tmp_path: Path) -> None:
    source = make()
    read = native.read(source)
    params = {**read.params, "model.final_norm.weight": np.full(16, 1e6, np.float32)}
    native.save(tmp_path / "big", read.config, params)
    with pytest.raises(
        CheckpointError, match=r"model\.final_norm\.weight has values that are NaN or infinite in float16"
    ):
        convert(tmp_path / "big", tmp_path / "new", dtype="float16")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "big"}


def test_what_cannot_be_done_is_named(make: Make, tmp_path: Path) -> None:
    source = make()
    with pytest.raises(ConfigError, match="unknown format 'hugging-face'; did you mean 'huggingface'"):
        convert(source, tmp_path / "new", to="hugging-face")
    for name in ("huggingface", "recurrentgemma-flax", "recurrentgemma-torch"):
        with pytest.raises(ConfigError, match=f"{name} cannot express .*gate_blocks=3 .*; what can: native"):
            convert(source, tmp_path / "new", to=name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty is no checkpoint; expected a directory"):
        convert(tmp_path / "empty", tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "empty"}


def test_detection_looks_at_content(make: Make, tmp_path: Path) -> None:
    assert detect(make()) == "native"
    renamed = tmp_path / "notes.pt"
    renamed.write_text("not a torch file")
    assert detect(renamed) is None


def test_a_manifest_that_states_other_weights_is_named(make: Make, tmp_path: Path) -> None:
    source = make()
    stated = read_manifest(source)
    (source / "manifest.json").write_text(replace(stated, weights_sha256="0" * 64).to_json())
    with pytest.raises(CheckpointError, match=r"manifest\.json: the weights that were read are not those of"):
        convert(source, tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


MEASURE = """
import sys
from pathlib import Path
from griffin_core.checkpoints.convert import convert
def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
before = anonymous()
peak = 0
def watch(size):
    global peak
    peak = max(peak, anonymous())
convert(sys.argv[1], sys.argv[2], dtype=sys.argv[3] or None, progress=watch)
print(peak - before)
"""


@pytest.mark.prove
@pytest.mark.parametrize("dtype", ["", "bfloat16"])
def test_memory_does_not_grow_with_the_checkpoint(make: Make, dtype: str) -> None:
    small = native.read(make()).config
    config = small.replace(width=2048, lru_width=2048, gate_blocks=8, mlp_width=4096, num_layers=2)
    rng = np.random.default_rng(0)
    params = {row.name: rng.standard_normal(row.shape, np.float32) for row in param_table(config)}
    assert sum(value.nbytes for value in params.values()) > 250_000_000
    with tempfile.TemporaryDirectory() as name:
        native.save(f"{name}/large", config, params)
        command = [sys.executable, "-c", MEASURE, f"{name}/large", f"{name}/new", dtype]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 60_000_000
