"""Keras checkpoints: directories of ours, files of Keras's own, their configs, and what the command says of them."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from griffin_core.checkpoints import native
from griffin_core.checkpoints.convert import convert, plan
from griffin_core.checkpoints.detect import detect
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.cli import main
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError, CheckpointMismatch
from griffin_core.layouts.keras import keras_places
from griffin_core.shapes import Array

h5py = pytest.importorskip("h5py")

MakeConfig = Callable[..., GriffinConfig]
MakeWeights = Callable[..., dict[str, Array]]


@pytest.fixture
def keras(tmp_path: Path, small_config: MakeConfig, weights: MakeWeights) -> Path:
    """A directory that we wrote, of a model that only we and Keras can hold."""
    config = small_config(tie_embeddings=False)
    native.save(tmp_path / "native", config, weights(config))
    convert(tmp_path / "native", tmp_path / "keras", to="keras")
    return tmp_path / "keras"


def test_a_directory_of_ours_is_whole_and_told_by_its_content(keras: Path) -> None:
    assert {path.name for path in keras.iterdir()} == {"config.json", "manifest.json", "model.keras"}
    digest = native.read(keras.with_name("native")).digest
    for path in (keras, keras / "model.keras"):
        read = open_checkpoint(path)
        assert (detect(path), read.format, read.digest) == ("keras", "keras", digest)
        assert read.config == native.read(keras.with_name("native")).config
    fields = json.loads(zipfile.ZipFile(keras / "model.keras").read("config.json"))
    assert fields["registered_name"] == "griffin_core_keras>GriffinCausalLM"
    assert fields["config"]["dtype"]["config"] == {"name": "float32"}
    made = plan(keras.with_name("native"), "keras")
    assert (made.scratch, made.files) == (0, ["model.keras"])
    assert {row["target"] for row in made.rows()} == {place.dataset for place in keras_places(read.config)}


def test_what_is_missing_or_unused_is_named(keras: Path) -> None:
    path = keras.with_name("m.weights.h5")
    path.write_bytes(zipfile.ZipFile(keras / "model.keras").read("model.weights.h5"))
    config = open_checkpoint(keras).config
    assert open_checkpoint(path, config=config).digest == open_checkpoint(keras).digest
    with pytest.raises(CheckpointMismatch, match=r"m\.weights\.h5: no released model has these shapes .*give the conf"):
        open_checkpoint(path)
    with h5py.File(path, "r+") as root:
        root.move("layer_0/mlp_block/up_proj/vars/1", "layer_0/mlp_block/up_proj/vars/2")
    words = r"missing: layer_0/mlp_block/up_proj/vars/1; unused: layer_0/mlp_block/up_proj/vars/2 \(did you mean"
    with pytest.raises(CheckpointMismatch, match=words):
        open_checkpoint(path, config=config)


def test_directories_as_keras_leaves_them(keras: Path) -> None:
    """Unpacked, sharded, or several files in one."""
    config, digest = open_checkpoint(keras).config, open_checkpoint(keras).digest
    unpacked = keras.with_name("unpacked")
    zipfile.ZipFile(keras / "model.keras").extractall(unpacked)
    read = open_checkpoint(unpacked)
    assert (read.format, read.config, read.digest) == ("keras", config, digest)
    (unpacked / "other.weights.h5").write_bytes((unpacked / "model.weights.h5").read_bytes())
    with pytest.raises(CheckpointError, match=r"unpacked holds 2 Keras files \(model\.weights\.h5, other\.weights\.h5"):
        open_checkpoint(unpacked)
    (unpacked / "model.weights.json").write_text("{}")
    for path in (unpacked, unpacked / "model.weights.json"):
        with pytest.raises(CheckpointError, match=r"lists shards of weights; load them in Keras and save one"):
            open_checkpoint(path)


def test_a_config_beside_and_one_inside_must_agree(keras: Path) -> None:
    (keras / "manifest.json").unlink()
    assert open_checkpoint(keras).config.attention_window == 9
    fields = json.loads((keras / "config.json").read_text())
    fields["griffin"]["attention_window"] = 10
    (keras / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointMismatch, match=r"config\.json and the config inside of .*model\.keras disagree"):
        open_checkpoint(keras)


def test_the_command_tells_and_compares(keras: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(keras / "model.keras")
    assert main(["info", file, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["format"], facts["programs"]) == ("keras", ["Keras 3"])
    assert facts["shards"][0]["file"] == "model.keras"
    assert main(["verify", "--checkpoint", file, "--against", str(keras.with_name("native")), "--no-logits"]) == 0


def test_no_framework_is_imported(keras: Path) -> None:
    code = (
        "import sys\nfor name in ('keras', 'tensorflow', 'torch', 'jax'): sys.modules[name] = None\n"
        "from griffin_core.checkpoints.convert import convert\n"
        "convert(sys.argv[1] + '/model.keras', sys.argv[2], to='keras')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(keras), str(keras.with_name("again"))], check=True)
    assert (keras.with_name("again") / "model.keras").read_bytes() == (keras / "model.keras").read_bytes()
