"""Kill -9 at any moment, resume, and not a bit differs from the run that was never killed."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from griffin_core.checkpoints import native
from griffin_core.text.tokenizer import ByteTokenizer
from griffin_core.training import run as runs
from griffin_core.training.rundir import RunDirectory

pytest.importorskip("griffin_core_torch.trainer")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the runner forks")


def kill_and_compare(spec, whole, tmp_path, kills, seed):
    out, spec_file = tmp_path / "killed", tmp_path / "spec.json"
    spec_file.write_text(json.dumps(spec.to_dict()))
    runner = [sys.executable, str(Path(__file__).with_name("kill_runner.py")), str(out), str(spec_file)]
    found = subprocess.run([*runner, str(kills), str(seed)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    first, second = RunDirectory(whole), RunDirectory(out)
    keys = ("step", "loss", "grad_norm", "learning_rate", "tokens")
    losses = [[[line[key] for key in keys] for line in run.metrics()] for run in (first, second)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == spec.options.steps
    one, two = (native.read(run.checkpoint) for run in (first, second))
    assert one.digest == two.digest
    for name, array in one.params.items():
        np.testing.assert_array_equal(two.params[name], array)
    assert not [path for path in out.rglob("*.part") if path.parent.name == "checkpoints" and path.is_file()]
    return json.loads(found.stdout)


def test_a_killed_run_ends_with_the_same_bits(spec, whole, tmp_path):
    counts = kill_and_compare(spec, whole, tmp_path, kills=5, seed=0)
    assert counts["kills"] >= 4
    assert counts["while_writing"] >= 1


def test_a_killed_run_on_jax_ends_with_the_same_bits(jax_spec, jax_whole, tmp_path):
    counts = kill_and_compare(jax_spec, jax_whole, tmp_path, kills=2, seed=0)
    assert counts["kills"] == 2
    assert counts["while_writing"] >= 1


@pytest.mark.prove
@pytest.mark.parametrize(("backend", "seed"), [("torch", 0), ("torch", 1), ("torch", 2), ("jax", 0)])
def test_many_kills_end_with_the_same_bits(spec, jax_spec, tmp_path, reporter, backend, seed):
    spec = {"torch": spec, "jax": jax_spec}[backend]
    often = replace(spec, options=replace(spec.options, steps=120), checkpoint_every=2)
    runs.start(tmp_path / "whole", often, ByteTokenizer(), reporter)
    counts = kill_and_compare(often, tmp_path / "whole", tmp_path, kills=40, seed=seed)
    assert counts["kills"] == 40
    assert counts["while_writing"] >= 10
