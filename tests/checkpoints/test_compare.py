"""Two checkpoints are the same, or how far apart they are; as functions and as a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import griffin_core as griffin
from griffin_core.checkpoints import native
from griffin_core.checkpoints.compare import compare_tensors
from griffin_core.checkpoints.convert import convert
from griffin_core.cli import main
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.shapes import DTYPES, Array

MakeConfig = Callable[..., GriffinConfig]
MakeWeights = Callable[..., dict[str, Array]]
NAME = "model.layers.1.temporal_block.q_proj.weight"


@pytest.fixture
def one(tmp_path: Path, exchange_config: MakeConfig, weights: MakeWeights) -> Path:
    """A native float32 checkpoint."""
    native.save(tmp_path / "one", exchange_config(), weights(exchange_config()))
    return tmp_path / "one"


def test_errors_are_counted_in_units_of_the_coarser_dtype() -> None:
    whole = np.array([1.0, 1.0 + 2.0**-9, -3.0, 0.0], np.float32)
    rounded = whole.astype(DTYPES["bfloat16"])
    (found,) = compare_tensors({"w": whole}, {"w": rounded})
    assert found.same
    assert (found.dtypes, found.differing, found.largest) == (("float32", "bfloat16"), 0, 2.0**-9)
    assert found.ulps == 0.25
    for pair in ({"w": whole}, {"w": rounded + 0}), ({"w": rounded}, {"w": whole}):
        assert compare_tensors(*pair)[0].same
    off = rounded.copy()
    off[2] = -3.0 - 2.0**-6
    (found,) = compare_tensors({"w": whole}, {"w": off})
    assert (found.same, found.differing, found.ulps) == (False, 1, 1.0)
    (found,) = compare_tensors({"w": whole}, {"w": whole * np.float32(1 + 2.0**-23)})
    assert (found.differing, found.ulps) == (3, 2.0)


def test_zero_and_its_negative_are_not_the_same_bits() -> None:
    (found,) = compare_tensors({"w": np.zeros(3, np.float32)}, {"w": -np.zeros(3, np.float32)})
    assert (found.differing, found.largest, found.ulps) == (3, 0.0, 0.0)


def test_views_and_arrays_compare_alike() -> None:
    values = np.random.default_rng(0).standard_normal((300, 200)).astype(np.float32)
    (found,) = compare_tensors({"w": values}, {"w": np.ascontiguousarray(values.T).T})
    assert found.same


def test_the_same_weights_in_other_formats(one: Path) -> None:
    convert(one, one.with_name("two"), to="huggingface", max_shard_size=5000)
    found = griffin.compare(one, one.with_name("two"), backend="numpy")
    assert found.same
    assert found.exact
    assert found.logits is not None
    assert (found.logits.largest, found.logits.same_choice) == (0.0, 1.0)
    convert(one, one.with_name("narrow"), dtype="bfloat16")
    found = griffin.compare(one, one.with_name("narrow"), backend="numpy")
    assert (found.same, found.exact) == (True, False)
    assert found.logits is not None
    assert 0.0 < found.logits.largest < found.logits.scale


def test_one_changed_value_is_found(one: Path) -> None:
    read = native.read(one)
    changed = read.params[NAME].copy()
    changed[3, 2] = np.nextafter(changed[3, 2], 9.0)
    native.save(one.with_name("two"), read.config, {**read.params, NAME: changed})
    found = griffin.compare(one, one.with_name("two"), logits=False)
    assert not found.same
    assert [(t.name, t.differing) for t in found.tensors if not t.same] == [(NAME, 1)]


def test_configs_that_differ_are_told_field_by_field(one: Path, exchange_config: MakeConfig) -> None:
    read = native.read(one)
    native.save(one.with_name("two"), exchange_config(attention_window=7), read.params)
    found = griffin.compare(one, one.with_name("two"))
    assert (found.same, found.config, found.tensors) == (False, {"attention_window": (9, 7)}, [])
    unrolled = exchange_config(block_pattern=list(read.config.layer_kinds))
    native.save(one.with_name("three"), unrolled, read.params)
    assert griffin.compare(one, one.with_name("three"), logits=False).same


def test_wrong_use(one: Path) -> None:
    with pytest.raises(InputError, match="tokens=0; expected at least one"):
        griffin.compare(one, one, tokens=0)


def test_the_command(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two, narrow = one.with_name("two"), one.with_name("narrow")
    assert main(["convert", str(one), str(two), "--to", "huggingface"]) == 0
    assert main(["convert", str(one), str(narrow), "--dtype", "float16"]) == 0
    capsys.readouterr()
    command = ["verify", "--backend", "numpy", "--checkpoint", str(one), "--against"]
    assert main([*command, str(two)]) == 0
    said = capsys.readouterr().out
    assert "native and huggingface: all 57 tensors are equal bit for bit" in said
    assert "largest difference 0 of" in said
    assert main([*command, str(narrow), "--no-logits"]) == 0
    assert "are equal up to rounding to the narrower dtype" in capsys.readouterr().out
    assert main([*command, str(narrow), "--no-logits", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["same"], found["exact"], len(found["tensors"])) == (True, False, 57)
    native.save(narrow, native.read(one).config, {n: -v for n, v in native.read(one).params.items()}, overwrite=True)
    assert main([*command, str(narrow), "--no-logits"]) == 1
    assert "tensors differ" in capsys.readouterr().out
    for words, message in (
        (["--checkpoint", str(one)], "needs both --checkpoint and --against"),
        (["--against", str(one)], "needs both"),
        (["--no-logits"], "needs both"),
        (
            ["--checkpoint", str(one), "--against", str(two), "--kernel", "loop"],
            "--kernel judges a kernel; leave it out",
        ),
    ):
        assert main(["verify", *words]) == 2
        assert message in capsys.readouterr().err
