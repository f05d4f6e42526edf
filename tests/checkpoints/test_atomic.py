"""Whatever happens while a checkpoint is written, the old one or the new one is there, whole."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from griffin_core.checkpoints import files, native
from griffin_core.checkpoints.manifest import digest_params
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError
from griffin_core.shapes import Array

Make = Callable[..., Path]
MakeConfig = Callable[..., GriffinConfig]
MakeWeights = Callable[..., dict[str, Array]]

PRELUDE = """
import json, os, signal, sys
from pathlib import Path
from griffin_core.checkpoints import native
from griffin_core.config import from_json
from griffin_core.layouts.initialise import init_params
config, target = from_json(sys.argv[1]), Path(sys.argv[2])
sets = [init_params(config, seed) for seed in range(2)]
"""

KILL_AT_EVERY_STEP = (
    PRELUDE
    + """
WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.listdir", "os.scandir",
           "ctypes.dlsym", "ctypes.dlopen"}

def child(step):
    left = [step]
    def hook(event, arguments):
        if event in WATCHED:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    native.save(target, config, sets[1], max_shard_size=30_000, overwrite=True)
    os._exit(0)

outcomes = []
step = 0
while True:
    step += 1
    pid = os.fork()
    if pid == 0:
        child(step)
    status = os.waitpid(pid, 0)[1]
    outcomes.append(native.read(target).digest if target.exists() else None)
    if status == 0:
        break
    if not os.WIFSIGNALED(status):
        sys.exit("the writer failed by itself")
print(json.dumps(outcomes))
"""
)

WRITE_FOR_EVER = (
    PRELUDE
    + """
print("ready", flush=True)
turn = 0
while True:
    native.save(target, config, sets[turn % 2], max_shard_size=30_000, overwrite=True)
    turn += 1
"""
)


def start(code: str, config: GriffinConfig, target: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), config.to_json(), str(target)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("existing", [False, True])
def test_a_kill_at_every_step_leaves_the_old_or_the_new(
    tmp_path: Path, small_config: MakeConfig, weights: MakeWeights, existing: bool
) -> None:
    config, target = small_config(), tmp_path / "model"
    old, new = (digest_params(weights(config, seed=seed)) for seed in range(2))
    if existing:
        native.save(target, config, weights(config, seed=0))
    process = start(KILL_AT_EVERY_STEP, config, target)
    outcomes = json.loads(process.communicate()[0])
    assert process.returncode == 0
    before = old if existing else None
    switch = outcomes.index(new)
    assert len(outcomes) > 15
    assert switch > 10
    assert set(outcomes[:switch]) == {before}
    assert set(outcomes[switch:]) == {new}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def kill_at_random(tmp_path: Path, config: GriffinConfig, digests: set[str], rounds: int) -> None:
    moments = random.Random(0)
    target = tmp_path / "model"
    for _ in range(rounds):
        process = start(WRITE_FOR_EVER, config, target)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.05, 0.25))
        process.kill()
        assert process.wait() == -9
        process.stdout.close()
        assert native.read(target).digest in digests


def test_random_kills_leave_a_whole_checkpoint(tmp_path: Path, small_config: MakeConfig, weights: MakeWeights) -> None:
    config = small_config()
    digests = {digest_params(weights(config, seed=seed)) for seed in range(2)}
    kill_at_random(tmp_path, config, digests, rounds=3)


@pytest.mark.prove
def test_many_random_kills(tmp_path: Path, small_config: MakeConfig, weights: MakeWeights) -> None:
    config = small_config(mlp_width=512)
    digests = {digest_params(weights(config, seed=seed)) for seed in range(2)}
    kill_at_random(tmp_path, config, digests, rounds=60)


def test_what_a_killed_writer_left_is_removed(make: Make, tmp_path: Path, small_config: MakeConfig) -> None:
    part = tmp_path / "model.part"
    (part / "deep").mkdir(parents=True)
    (part / "model.safetensors").write_bytes(b"half")
    directory = make()
    assert not part.exists()
    assert native.read(directory).config == small_config()


def test_an_unfinished_directory_is_no_checkpoint(make: Make) -> None:
    directory = make()
    (directory / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no manifest\.json: .* it is unfinished"):
        native.read(directory)


def test_two_writers_do_not_mix(make: Make, tmp_path: Path, small_config: MakeConfig, weights: MakeWeights) -> None:
    target = tmp_path / "model"
    with files.replacing(target) as part:
        (part / "file").write_text("first")
        with pytest.raises(CheckpointError, match="another process is writing"):
            native.save(target, small_config(), weights(small_config()))
    assert (target / "file").read_text() == "first"


def test_a_full_disk_leaves_the_old_one(make: Make, small_config: MakeConfig, weights: MakeWeights) -> None:
    directory = make()
    before = native.read(directory).digest
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*: file too large"):
            native.save(directory, small_config(), weights(small_config(), seed=1), overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert native.read(directory).digest == before
    assert [path.name for path in directory.parent.iterdir()] == ["model"]


def test_without_an_exchange_the_old_one_is_kept_until_the_new_one_stands(
    make: Make, small_config: MakeConfig, weights: MakeWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    directory, new = make(), weights(small_config(), seed=1)
    (directory.parent / "model.old").mkdir()
    native.save(directory, small_config(), new, overwrite=True)
    assert native.read(directory).digest == digest_params(new)
    assert [path.name for path in directory.parent.iterdir()] == ["model"]


def test_a_kill_between_two_renames_is_explained(make: Make) -> None:
    directory = make()
    directory.rename(directory.with_name("model.old"))
    with pytest.raises(CheckpointError, match=r"an interrupted writer left the last one; rename .*model\.old back"):
        native.read(directory)
