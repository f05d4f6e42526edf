"""Conversions are killed at random moments, in every direction."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from griffin_core.checkpoints import native
from griffin_core.checkpoints.convert import convert
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.config import GriffinConfig
from griffin_core.shapes import Array
from tests.checkpoints.test_resume import contents

MakeConfig = Callable[..., GriffinConfig]
MakeWeights = Callable[..., dict[str, Array]]
CONVERT = (
    "import sys; from griffin_core.checkpoints.convert import convert; print('go', flush=True); convert(*sys.argv[1:])"
)


@pytest.mark.prove
@pytest.mark.parametrize(
    ("first", "to"),
    [
        ("native", "huggingface"),
        ("huggingface", "native"),
        ("native", "recurrentgemma-torch"),
        ("recurrentgemma-torch", "native"),
        ("native", "recurrentgemma-flax"),
        ("recurrentgemma-flax", "native"),
        ("native", "keras"),
        ("keras", "native"),
    ],
)
def test_killed_at_20_random_moments(
    tmp_path: Path, exchange_config: MakeConfig, weights: MakeWeights, first: str, to: str
) -> None:
    """After each kill the destination is absent or whole; the last run gives the same tensors, and our own bytes."""
    pytest.importorskip("h5py" if "keras" in (first, to) else "numpy")
    config = exchange_config(width=512, lru_width=512, head_dim=256, mlp_width=4096, vocab_size=20_000)
    native.save(tmp_path / "native", config, weights(config), max_shard_size="8MB")
    source, target, whole = tmp_path / "source", tmp_path / "new", tmp_path / "whole"
    convert(tmp_path / "native", source, to=first)
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", CONVERT, source, whole, to], check=True, stdout=subprocess.DEVNULL)
    longest = time.monotonic() - start
    moments, killed = random.Random(0), 0
    while killed < 20:
        with subprocess.Popen([sys.executable, "-c", CONVERT, source, target, to], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moments.uniform(0.0, 0.5 * longest))
            process.kill()
        killed += 1
        if target.exists():
            assert open_checkpoint(target).digest == native.read(tmp_path / "native").digest
            shutil.rmtree(target)
    convert(source, target, to=to)
    assert open_checkpoint(target).digest == open_checkpoint(whole).digest
    if to in ("native", "huggingface", "keras"):
        assert contents(target) == contents(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"native", "source", "new", "whole"}
