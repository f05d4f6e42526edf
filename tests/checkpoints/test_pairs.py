"""Any format to any other and back keeps every bit, over random configs and dtypes."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_core.checkpoints import native
from griffin_core.checkpoints.convert import convert, plan
from griffin_core.checkpoints.formats import FORMATS
from griffin_core.checkpoints.manifest import digest_params
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, ConfigError
from griffin_core.layouts.params import param_table
from griffin_core.shapes import DTYPES, Array

NEEDS = {None: "numpy", "jax": "orbax.checkpoint", "torch": "torch", "keras": "h5py"}
PAIRS = tuple(itertools.product(FORMATS, FORMATS))
DTYPE = st.sampled_from(["float32", "float16", "bfloat16"])


@st.composite
def configs(draw: st.DrawFn, *formats: str) -> GriffinConfig:
    """Small configs that every one of the formats can hold."""
    heads, head_dim = draw(st.integers(1, 3)), 4 * draw(st.integers(1, 2))
    exchange = "huggingface" in formats
    kinds = st.lists(st.sampled_from(["recurrent", "attention"]), min_size=1, max_size=3)
    pattern = draw(kinds.filter(lambda found: not exchange or len(set(found)) == 2))
    free = set(formats) <= {"native", "keras"}
    return GriffinConfig(
        width=heads * head_dim,
        lru_width=heads * (head_dim if exchange else draw(st.integers(1, 7))),
        mlp_width=draw(st.integers(1, 20)),
        num_heads=heads,
        head_dim=head_dim,
        gate_blocks=1 if free else heads,
        block_pattern=tuple(pattern),
        num_layers=draw(st.integers(len(pattern), 4)),
        attention_window=draw(st.integers(2, 20)) if not free else None,
        vocab_size=draw(st.integers(2, 40)),
        conv_width=4 if not free else draw(st.integers(2, 5)),
        logits_soft_cap=30.0 if exchange else draw(st.sampled_from([None, 20.0])),
        embedding_scale="sqrt_width" if exchange else draw(st.sampled_from([None, "sqrt_width"])),
        tie_embeddings=not free or draw(st.booleans()),
    )


def weights(config: GriffinConfig, dtypes: dict[str, str], seed: int) -> dict[str, Array]:
    """Random values in every parameter, norms and biases too."""
    rng = np.random.default_rng(seed)
    return {
        row.name: rng.standard_normal(row.shape, np.float32).astype(DTYPES[dtypes["decay" if row.float32 else "rest"]])
        for row in param_table(config)
    }


def require(*formats: str) -> None:
    for name in formats:
        pytest.importorskip(NEEDS[FORMATS[name].extra])


def same(read: dict[str, Array], saved: dict[str, Array]) -> None:
    assert list(read) == list(saved)
    for name, value in saved.items():
        found = np.asarray(read[name])
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.tobytes() == value.tobytes()


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=["-to-".join(pair) for pair in PAIRS])
def test_there_and_back_keeps_every_bit(first: str, second: str) -> None:
    require(first, second)

    @settings(max_examples=3 if {"recurrentgemma-flax", "keras"} & {first, second} else 6)
    @given(config=configs(first, second), rest=DTYPE, decay=DTYPE, seed=st.integers(0, 99))
    def check(config: GriffinConfig, rest: str, decay: str, seed: int) -> None:
        params = weights(config, {"rest": rest, "decay": decay}, seed)
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            native.save(place / "made", config, params)
            convert(place / "made", place / "a", to=first)
            convert(place / "a", place / "b", to=second)
            convert(place / "b", place / "a2", to=first)
            for made in ("a", "b", "a2"):
                read = open_checkpoint(place / made)
                assert read.config == config
                assert read.format == (second if made == "b" else first)
                assert read.digest == digest_params(params)
                same(dict(read.params), params)

    check()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("to", list(FORMATS))
def test_another_dtype_is_rounded_once(
    tmp_path: Path, to: str, dtype: str, exchange_config: Callable[..., GriffinConfig]
) -> None:
    require(to)
    config = exchange_config()
    params = weights(config, {"rest": "float32", "decay": "float32"}, 0)
    native.save(tmp_path / "a", config, params)
    convert(tmp_path / "a", tmp_path / "b", to=to, dtype=dtype)
    kept = {row.name for row in param_table(config) if row.float32 and to != "huggingface"}
    rounded = {name: value if name in kept else value.astype(DTYPES[dtype]) for name, value in params.items()}
    same(dict(open_checkpoint(tmp_path / "b").params), rounded)


@pytest.mark.parametrize("to", list(FORMATS))
def test_the_plan_names_what_is_written(tmp_path: Path, to: str, exchange_config: Callable[..., GriffinConfig]) -> None:
    require(to)
    config = exchange_config()
    native.save(tmp_path / "a", config, weights(config, {"rest": "bfloat16", "decay": "float32"}, 0))
    made = plan(tmp_path / "a", to)
    convert(tmp_path / "a", tmp_path / "b", to=to)
    stored = open_checkpoint(tmp_path / "b").stored
    assert {row["target"].split("[")[0] for row in made.rows()} == set(stored)
    assert sum(row["bytes"] for row in made.rows()) == made.nbytes == sum(tensor.nbytes for tensor in stored.values())
    back = plan(tmp_path / "b", "native").rows()
    assert [row["source"] for row in back] == [row["target"] for row in made.rows()]


@pytest.mark.parametrize("to", [name for name in FORMATS if name not in ("native", "keras")])
def test_what_a_format_cannot_say_is_refused(
    tmp_path: Path, to: str, exchange_config: Callable[..., GriffinConfig]
) -> None:
    changes: list[dict[str, object]] = [
        {"gate_blocks": 4},
        {"attention_window": None},
        {"tie_embeddings": False},
        {"head_dim": 4},
    ]
    if to == "huggingface":
        changes += [
            {"lru_width": 32, "gate_blocks": 2},
            {"logits_soft_cap": None},
            {"embedding_scale": None},
            {"block_pattern": ["recurrent"]},
        ]
    else:
        changes.append({"conv_width": 3})
    for number, change in enumerate(changes):
        config = exchange_config(**change)
        native.save(tmp_path / f"a{number}", config, weights(config, {"rest": "float32", "decay": "float32"}, 0))
        with pytest.raises(ConfigError, match=rf"{to} cannot express .*{next(iter(change))}.*; what can: native"):
            convert(tmp_path / f"a{number}", tmp_path / "b", to=to)
    assert not (tmp_path / "b").exists()


def test_options_that_a_format_has_no_use_for_are_refused(
    tmp_path: Path, exchange_config: Callable[..., GriffinConfig]
) -> None:
    config = exchange_config()
    native.save(tmp_path / "a", config, weights(config, {"rest": "float32", "decay": "float32"}, 0))
    with pytest.raises(ConfigError, match="is not written in shards; leave max_shard_size out"):
        convert(tmp_path / "a", tmp_path / "b", to="recurrentgemma-torch", max_shard_size="1GB")
    with pytest.raises(ConfigError, match="which has its own config; give none"):
        convert(tmp_path / "a", tmp_path / "b", config="griffin-tiny")
    require("recurrentgemma-torch")
    mixed = weights(config, {"rest": "float32", "decay": "float32"}, 0)
    name = "model.layers.0.mlp_block.up_proj.weight"
    native.save(tmp_path / "mixed", config, {**mixed, name: mixed[name].astype(np.float16)})
    with pytest.raises(ConfigError, match=r"ffw_up\.w would hold float32 and float16; give one --dtype"):
        convert(tmp_path / "mixed", tmp_path / "b", to="recurrentgemma-torch")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "mixed"}


def test_without_a_framework_the_others_still_convert(
    tmp_path: Path, exchange_config: Callable[..., GriffinConfig]
) -> None:
    config = exchange_config()
    native.save(tmp_path / "a", config, weights(config, {"rest": "bfloat16", "decay": "bfloat16"}, 0))
    code = (
        "import sys\nfor name in ('torch', 'jax', 'orbax', 'h5py'): sys.modules[name] = None\n"
        "from griffin_core.checkpoints.convert import convert\n"
        "convert('a', 'b', to='huggingface'); convert('b', 'c')\n"
        "from griffin_core.cli import main\n"
        "others = 'recurrentgemma-torch', 'recurrentgemma-flax', 'keras'\n"
        "print([main(['convert', 'a', 'd', '--to', other]) for other in others])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[1, 1, 1]\n"
    for extra in ("torch", "jax", "keras"):
        assert "needs a library that is not installed" in done.stderr
        assert f"pip install 'griffin-core[{extra}]'" in done.stderr
    assert native.read(tmp_path / "c").digest == native.read(tmp_path / "a").digest
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path / "d")
