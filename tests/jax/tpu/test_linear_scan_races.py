"""The simulator catches a time axis that claims to be parallel; its control passes. Each runs in its own process."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys
import numpy as np, jax.numpy as jnp
from griffin_core import reference
from griffin_core_jax.tpu import chips, linear_scan_forward as kernel
from griffin_core_jax.tpu.interpret import interpreting
from griffin_core_jax.tpu.tiling import fixed

kernel.SEMANTICS = tuple(sys.argv[1].split(","))
rng = np.random.default_rng(0)
shape = (1, 96, 128)
x, log_a = rng.normal(size=shape).astype(np.float32), -np.abs(rng.normal(size=shape)).astype(np.float32)
h0 = rng.normal(size=(1, 128)).astype(np.float32)
tiles = fixed("linear_scan", "forward", shape, "float32", chips.SMALLEST, 16, 128)
with interpreting("random"):
    y, h = kernel.linear_scan_forward(jnp.asarray(x), jnp.asarray(log_a), jnp.asarray(h0), None, tiles)
right = np.abs(np.asarray(y) - reference.linear_scan(x, log_a, h0)[0]) < 1e-4
print("RIGHT" if right.all() else f"WRONG {(~right).sum()} of {right.size}")
"""


def _run(semantics: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, semantics],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout.strip() or done.stderr[-500:]


def test_a_parallel_time_axis_is_caught() -> None:
    assert _run("parallel,parallel,arbitrary") == "RIGHT"
    said = _run("parallel,parallel,parallel")
    assert said.startswith("WRONG"), said
