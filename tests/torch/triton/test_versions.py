"""The kernels under the other versions of Triton: compiled without a spill, and interpreted with the same results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from griffin_core import env

pytestmark = pytest.mark.prove

OTHERS = ("3.6.0", "3.8.0", "3.9.0")
"""Beside the pinned one, which all other tests use."""
COMPILED = (
    "gated_scan/forward/exact/bf16",
    "gated_scan/backward/aggregate/bf16",
    "rg_lru/forward/bf16",
    "conv1d/backward/bf16",
    "recurrent_step/16/bf16",
)
COMPILE = """
import sys, triton
from griffin_core_torch.triton.aot import build, programs
print(triton.__version__)
for program in programs():
    if program.key in sys.argv[1:]:
        print(program.key, build(program, "sm_90").spills)
"""
HERE = Path(__file__).resolve().parent
INTERPRETED = ["test_rg_lru.py", "test_scans.py", "test_conv.py"]


@pytest.mark.parametrize("version", OTHERS)
def test_another_version(tmp_path: Path, version: str) -> None:
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*install, f"triton=={version}"], check=True)
    environment = env.child_environment({"PYTHONPATH": str(tmp_path)})
    found = subprocess.run(
        [sys.executable, "-c", COMPILE, *COMPILED], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split("\n")[0] == version
    assert sorted(found.stdout.strip().split("\n")[1:]) == sorted(f"{key} 0" for key in COMPILED)
    files = [str(HERE / name) for name in INTERPRETED]
    chosen = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "marks or packed", "-m", "not prove"]
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", *chosen, *files], env=environment, capture_output=True, text=True, check=False
    )
    assert tests.returncode == 0, tests.stdout[-3000:]
