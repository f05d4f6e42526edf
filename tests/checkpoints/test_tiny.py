"""The committed checkpoints, each made by the program that owns its format: all hold the golden weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import griffin_core as griffin
from griffin_core.checkpoints import native
from griffin_core.checkpoints.convert import convert
from griffin_core.checkpoints.formats import FORMATS
from griffin_core.checkpoints.manifest import digest_params
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.errors import CheckpointMismatch, ConfigError
from griffin_core.facts import checkpoint_facts

TINY = Path(__file__).with_name("tiny")
GOLDEN = Path(__file__).resolve().parents[1] / "parity" / "golden"
CONFIG = native.read(TINY / "native").config
NEEDS = {None: "numpy", "jax": "tensorstore", "torch": "torch", "keras": "h5py"}
DECAY = "recurrent_param"
MADE = {
    "native": "native",
    "transformers": "huggingface",
    "transformers-4": "huggingface",
    "official-torch": "recurrentgemma-torch",
    "official-flax": "recurrentgemma-flax",
    "keras": "keras",
}
"""Directory and format."""
MADE_BY = pytest.mark.parametrize(("name", "found"), MADE.items())


def options(found: str) -> dict[str, Any]:
    """Official checkpoints of no released model need a config."""
    return {} if FORMATS[found].layout is None else {"config": CONFIG}


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if "found" in request.fixturenames:
        pytest.importorskip(NEEDS[FORMATS[request.getfixturevalue("found")].extra])


def digest(name: str) -> str:
    """Of the golden weights in bfloat16; a Keras model holds its decay parameters in float32 always."""
    read = native.read(TINY / "native")
    if name != "keras":
        return str(read.digest)
    params = read.params.items()
    return digest_params({n: np.asarray(v, np.float32 if n.endswith(DECAY) else None) for n, v in params})


@MADE_BY
def test_it_holds_the_golden_weights(name: str, found: str) -> None:
    read = open_checkpoint(TINY / name, **options(found))
    assert (read.format, read.config) == (found, CONFIG)
    golden = load_file(GOLDEN / "inputs.safetensors")
    for parameter, value in read.params.items():
        assert value.dtype.name == ("float32" if name == "keras" and parameter.endswith(DECAY) else "bfloat16")
        np.testing.assert_array_equal(np.asarray(value, np.float32), golden[parameter].astype(np.float32))
    assert read.digest == digest(name)


@MADE_BY
@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_it_is_loaded_without_conversion(name: str, found: str, backend: str) -> None:
    pytest.importorskip(backend)
    model = griffin.load(TINY / name, backend=backend, dtype="float32", **options(found))
    tokens = np.arange(24).reshape(2, 12)
    expected = griffin.load(TINY / "native", backend=backend, dtype="float32").forward(tokens)[0]
    np.testing.assert_array_equal(model.forward(tokens)[0], expected)


@MADE_BY
@pytest.mark.parametrize("to", list(FORMATS))
def test_it_converts_to_every_format(tmp_path: Path, name: str, found: str, to: str) -> None:
    pytest.importorskip(NEEDS[FORMATS[to].extra])
    convert(TINY / name, tmp_path / "new", to=to, **options(found))
    read = open_checkpoint(tmp_path / "new")
    assert (read.format, read.config) == (to, CONFIG)
    assert read.digest == digest(name)
    assert griffin.compare(TINY / name, tmp_path / "new", backend="numpy", **options(found)).exact


@MADE_BY
def test_info_tells_what_it_is(name: str, found: str) -> None:
    facts = checkpoint_facts(TINY / name, **({"config": None} if FORMATS[found].layout is None else options(found)))
    assert (facts["format"], sum(facts["dtypes"].values())) == (found, facts["parameters"])
    assert list(facts["dtypes"]) == (["bfloat16", "float32"] if name == "keras" else ["bfloat16"])
    assert ("manifest" in facts["integrity"]) == (name != "native")
    readers = {"native": ["transformers", "mlx-lm", "candle"], "huggingface": ["transformers"]}
    assert facts["programs"] == readers.get(found, [*FORMATS[found].programs])
    assert json.dumps(facts)


@pytest.mark.parametrize("name", ["official-torch", "official-flax"])
def test_without_a_config_the_user_is_asked_for_one(tmp_path: Path, name: str) -> None:
    pytest.importorskip(NEEDS[FORMATS[MADE[name]].extra])
    with pytest.raises(CheckpointMismatch, match=r"no released model has these shapes \(width=32, .*give the config"):
        open_checkpoint(TINY / name)
    file = tmp_path / "config.json"
    file.write_text(CONFIG.to_json())
    for path in (file, TINY / "native/config.json"):
        assert open_checkpoint(TINY / name, config=path).config == CONFIG
    with pytest.raises(ConfigError, match="unknown preset 'griffin-tyny'"):
        open_checkpoint(TINY / name, config="griffin-tyny")
    with pytest.raises(CheckpointMismatch, match=rf"{name}.*parameters do not match the config"):
        open_checkpoint(TINY / name, config="recurrentgemma-tiny")


def test_a_download_has_its_tokenizer_above_the_tree(tmp_path: Path) -> None:
    pytest.importorskip("tensorstore")
    shutil.copytree(TINY / "official-flax", tmp_path / "download/2b-it")
    (tmp_path / "download/tokenizer.model").write_bytes(b"any")
    for path in (tmp_path / "download", tmp_path / "download/2b-it"):
        read = open_checkpoint(path, config=CONFIG)
        assert read.tokenizer_files == {"tokenizer.model": b"any"}
        assert read.digest == native.read(TINY / "native").digest
