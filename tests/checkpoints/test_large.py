"""Memory and pace of conversions at full size: RecurrentGemma-2B's shapes and vocabulary in bfloat16.

8 GB in our own files; half of that where a framework writes, at whose pace the rest would only repeat itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from griffin_core.checkpoints import native
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.checkpoints.sources import DeferredArray
from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import EMBEDDING, param_table
from griffin_core.presets import PRESETS
from griffin_core.shapes import DTYPES, Array

pytestmark = pytest.mark.prove

CONFIG = PRESETS["recurrentgemma-2b"].config.replace(num_layers=42)
"""The 2B model's shapes, with as many layers as make 8 GB."""
HALF = CONFIG.replace(num_layers=17)
"""With as many as make 4 GB; a third of it is the embedding."""
BEYOND_A_TENSOR = 300_000_000
PACE = 0.6
"""Of the pace of copying the same files with hashing."""
SHARE = 0.25
"""Of the checkpoint, where a framework reads or writes its own files."""

CONVERT = """
import json, sys, threading, time
from pathlib import Path
from griffin_core.checkpoints.convert import convert
from griffin_core.checkpoints.formats import FORMATS
from griffin_core.checkpoints.stores import load_store

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

for name in sys.argv[4:]:
    if FORMATS[name].layout is not None:
        load_store(name)
before, peak, going = anonymous(), 0, True
def watch():
    global peak
    while going:
        peak = max(peak, anonymous())
        time.sleep(0.003)
thread = threading.Thread(target=watch)
thread.start()
start = time.perf_counter()
convert(sys.argv[1], sys.argv[2], to=sys.argv[3])
seconds = time.perf_counter() - start
going = False
thread.join()
print(json.dumps({"peak": peak - before, "seconds": seconds}))
"""


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """bfloat16 values that are finite and not compressible, made quickly."""
    bits = np.resize(rng.integers(0, 1 << 16, 1 << 20, dtype=np.uint16), shape)
    return (bits & 0xBFFF).view(DTYPES["bfloat16"])


@pytest.fixture
def place(config: GriffinConfig) -> Iterator[Path]:
    """A directory with a native checkpoint of that config in it."""
    with tempfile.TemporaryDirectory() as name:
        rng = np.random.default_rng(0)
        params = {
            row.name: DeferredArray(row.shape, "bfloat16", lambda row=row: _values(rng, row.shape))
            for row in param_table(config)
        }
        native.save(Path(name) / "native", config, params)  # type: ignore[arg-type]
        yield Path(name)


def convert(source: Path, target: Path, to: str, *formats: str) -> dict[str, float]:
    """Convert in a fresh process; its peak of anonymous memory above the imports, and its seconds."""
    command = [sys.executable, "-c", CONVERT, str(source), str(target), to, to, *formats]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def copy(source: Path, target: Path) -> float:
    """Seconds to copy every file, hashing on the way and forcing each to disk."""
    target.mkdir()
    start = time.perf_counter()
    for path in sorted(source.iterdir()):
        digest = hashlib.sha256()
        with path.open("rb") as old, (target / path.name).open("wb") as new:
            while block := old.read(1 << 22):
                digest.update(block)
                new.write(block)
            new.flush()
            os.fsync(new.fileno())
    return time.perf_counter() - start


@pytest.mark.parametrize("config", [CONFIG], ids=["8GB"])
def test_safetensors_stream(place: Path) -> None:
    size = sum(open_checkpoint(place / "native", verify=False).sizes.values())
    largest = 2 * CONFIG.vocab_size * CONFIG.width
    assert size > 7.8e9
    copied = [copy(place / "native", place / "copied")]
    shutil.rmtree(place / "copied")
    there = convert(place / "native", place / "huggingface", "huggingface")
    back = convert(place / "huggingface", place / "again", "native")
    assert native.read(place / "again", verify=False).digest == native.read(place / "native", verify=False).digest
    shutil.rmtree(place / "huggingface")
    shutil.rmtree(place / "again")
    copied.append(copy(place / "native", place / "copied"))
    shutil.rmtree(place / "copied")
    for name, run in (("to huggingface", there), ("to native", back)):
        pace = sum(copied) / 2 / run["seconds"]
        print(f"{name}: {size / run['seconds'] / 1e9:.2f} GB/s, {pace:.2f} of copying, {run['peak'] / 1e6:.0f} MB")
        assert run["peak"] < largest + BEYOND_A_TENSOR
        assert pace >= PACE


@pytest.mark.parametrize("config", [HALF], ids=["4GB"])
@pytest.mark.parametrize("name", ["recurrentgemma-torch", "recurrentgemma-flax", "keras"])
def test_a_frameworks_own_files(place: Path, name: str) -> None:
    needs = {"recurrentgemma-torch": "torch", "recurrentgemma-flax": "orbax.checkpoint", "keras": "h5py"}
    pytest.importorskip(needs[name])
    one = open_checkpoint(place / "native", verify=False)
    size = sum(one.sizes.values())
    there = convert(place / "native", place / name, name)
    back = convert(place / name, place / "again", "native", name)
    other = open_checkpoint(place / "again", verify=False)
    assert one.digest == other.digest
    assert EMBEDDING in other.params
    shutil.rmtree(place / name)
    shutil.rmtree(place / "again")
    for what, run in ((f"to {name}", there), (f"from {name}", back)):
        print(f"{what}: {size / run['seconds'] / 1e9:.2f} GB/s, {run['peak'] / size:.3f} of the checkpoint in memory")
        assert run["peak"] < SHARE * size
