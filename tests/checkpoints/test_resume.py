"""A conversion that is stopped, killed or out of disk goes on where it stopped, and ends with the same bytes."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from griffin_core.checkpoints import files, native, tensor_directory
from griffin_core.checkpoints.convert import convert
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.config import GriffinConfig
from griffin_core.errors import CheckpointError
from griffin_core.shapes import Array

MakeConfig = Callable[..., GriffinConfig]
MakeWeights = Callable[..., dict[str, Array]]
SHARD = 4000
OPTIONS = {"to": "huggingface", "max_shard_size": SHARD}


def contents(directory: Path) -> dict[str, bytes]:
    """Every file's bytes, by name."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.fixture
def source(tmp_path: Path, exchange_config: MakeConfig, weights: MakeWeights) -> Path:
    """A native checkpoint that every format can hold."""
    native.save(tmp_path / "source", exchange_config(), weights(exchange_config()), max_shard_size=10_000)
    return tmp_path / "source"


@pytest.fixture
def undisturbed(source: Path) -> dict[str, bytes]:
    """What the conversion gives when nothing happens."""
    convert(source, source.with_name("undisturbed"), **OPTIONS)
    found = contents(source.with_name("undisturbed"))
    shutil.rmtree(source.with_name("undisturbed"))
    return found


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are really written."""
    names: list[str] = []
    real = tensor_directory.write_tensors

    def write(path: Path, *arguments: object) -> object:
        names.append(path.name.removesuffix(".part"))
        return real(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tensor_directory, "write_tensors", write)
    return names


def stop_after(shards: int, written: list[str]) -> Callable[[int], None]:
    """A progress callback behind which the user presses Ctrl-C."""

    def progress(size: int) -> None:
        if len(written) > shards:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_conversion_skips_what_is_finished(
    source: Path, undisturbed: dict[str, bytes], written: list[str]
) -> None:
    target = source.with_name("new")
    with pytest.raises(KeyboardInterrupt):
        convert(source, target, progress=stop_after(3, written), **OPTIONS)
    part = source.with_name("new.part")
    assert not target.exists()
    assert (part / "journal.json").exists()
    with pytest.raises(CheckpointError, match=r"new\.part has no config\.json"):
        open_checkpoint(part)
    done = written[:3]
    written.clear()
    convert(source, target, **OPTIONS)
    assert not set(done) & set(written)
    assert {*done, *written} == {name for name in undisturbed if name.startswith("model-")}
    assert contents(target) == undisturbed
    assert not part.exists()


@pytest.mark.parametrize("change", ["options", "source", "damage", "journal"])
def test_what_no_longer_fits_is_written_again(
    source: Path,
    undisturbed: dict[str, bytes],
    written: list[str],
    change: str,
    exchange_config: MakeConfig,
    weights: MakeWeights,
) -> None:
    target, part = source.with_name("new"), source.with_name("new.part")
    with pytest.raises(KeyboardInterrupt):
        convert(source, target, progress=stop_after(3, written), **OPTIONS)
    options = dict(OPTIONS)
    if change == "options":
        options["max_shard_size"] = 8000
    elif change == "source":
        native.save(source, exchange_config(), weights(exchange_config(), seed=1), overwrite=True)
    elif change == "damage":
        data = bytearray((part / written[1]).read_bytes())
        data[-1] ^= 1
        (part / written[1]).write_bytes(data)
    else:
        (part / "journal.json").write_text("{}")
    kept, written[:] = written[:3], []
    convert(source, target, **options)
    again = set(kept) & set(written)
    assert len(again) == (1 if change == "damage" else 0 if change == "options" else 3)
    assert open_checkpoint(target).digest == native.read(source).digest
    if change in ("damage", "journal"):
        assert contents(target) == undisturbed


def test_a_full_disk_keeps_what_is_finished(
    source: Path, undisturbed: dict[str, bytes], written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, before = source.with_name("new"), contents(source)

    def full(handle: int) -> None:
        if len(written) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("griffin_core.checkpoints.tensor_file.os.fsync", full)
        with pytest.raises(CheckpointError, match=r"no space left on device; finished shards are kept in .*new\.part"):
            convert(source, target, **OPTIONS)
    assert not target.exists()
    assert contents(source) == before
    written.clear()
    convert(source, target, **OPTIONS)
    assert len(written) == len([name for name in undisturbed if name.startswith("model-")]) - 3
    assert contents(target) == undisturbed


@pytest.mark.parametrize("to", ["huggingface", "recurrentgemma-torch", "recurrentgemma-flax", "keras"])
def test_a_limit_on_file_size_is_named_and_leaves_nothing_whole(source: Path, to: str) -> None:
    needs = {"recurrentgemma-torch": "torch", "recurrentgemma-flax": "orbax.checkpoint", "keras": "h5py"}
    pytest.importorskip(needs.get(to, "numpy"))
    open_checkpoint(source)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*: file too large"):
            convert(source, source.with_name("new"), to=to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not source.with_name("new").exists()


def test_too_little_room_is_seen_before_anything_is_written(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(source)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=7))
    with pytest.raises(CheckpointError, match=r"new needs [\d,]+ bytes on disk, but 7 are free; make room"):
        convert(source, source.with_name("new"))
    assert {path.name for path in source.parent.iterdir()} == {"source"}


def test_two_conversions_to_one_place_do_not_mix(source: Path) -> None:
    with files.replacing(source.with_name("new")), pytest.raises(CheckpointError, match="another process is writing"):
        convert(source, source.with_name("new"), **OPTIONS)


KILL_AT_EVERY_STEP = """
import json, os, signal, sys
from pathlib import Path
from griffin_core.checkpoints import opening
from griffin_core.checkpoints.convert import convert
source, target, to = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
options = {"to": to, **({"max_shard_size": 12_000} if to in ("native", "huggingface") else {})}
WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir"}

def child(step):
    left = [step]
    def hook(event, arguments):
        if event in WATCHED:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    convert(source, target, **options)
    os._exit(0)

steps, early = 0, 0
while True:
    steps += 1
    pid = os.fork()
    if pid == 0:
        child(steps)
    status = os.waitpid(pid, 0)[1]
    if status == 0:
        break
    if not os.WIFSIGNALED(status):
        sys.exit("the conversion failed by itself")
    if target.exists():
        assert opening.open_checkpoint(target).format == to
        break
    early += 1
print(json.dumps([steps, early]))
"""


def test_killed_again_and_again_it_still_ends_with_the_same_bytes(source: Path) -> None:
    """Every run dies one step later than the one before, and each goes on where the last one stopped."""
    convert(source, source.with_name("whole"), to="huggingface", max_shard_size=12_000)
    target = source.with_name("new")
    command = [sys.executable, "-c", KILL_AT_EVERY_STEP, str(source), str(target), "huggingface"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    steps, early = json.loads(done.stdout)
    assert steps > 15
    assert early > 10
    assert contents(target) == contents(source.with_name("whole"))
    assert {path.name for path in source.parent.iterdir()} == {"source", "new", "whole"}
