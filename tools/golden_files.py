"""Reading the golden files, and running the reference and the backends on their inputs."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (registers bfloat16, which safetensors needs)
import numpy as np
from golden_cases import CONFIG, Case
from safetensors import safe_open

from griffin_core import reference, registry
from griffin_core.layouts.params import param_table
from griffin_core.shapes import Array

DIRECTORY = Path(__file__).resolve().parent.parent / "tests" / "parity" / "golden"
BACKENDS = tuple(n for n in ("numpy", "torch", "keras") if n == "numpy" or importlib.util.find_spec(n) is not None)

AGREES = 2e-5
"""Float32 logits of two right implementations: about 40 roundings at the logits' scale of 6."""
DIFFERS = 5e-3
"""A fault moves some logit by more than this: 250 times what rounding may."""
REPEATS = 5e-6
"""What a peer may differ by from its own golden output: a quarter of what two implementations may."""


@functools.cache
def read(name: str) -> dict[str, Array]:
    """The arrays of a golden file."""
    with safe_open(DIRECTORY / f"{name}.safetensors", framework="numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)


def metadata(name: str) -> dict[str, str]:
    """The versions and the weights' digest in a golden file."""
    with safe_open(DIRECTORY / f"{name}.safetensors", framework="numpy") as file:
        return file.metadata()


@functools.cache
def weights() -> dict[str, Array]:
    """Float32 weights by canonical name."""
    inputs = read("inputs")
    return {row.name: inputs[row.name].astype(np.float32) for row in param_table(CONFIG)}


def case(name: str) -> Case:
    """The case whose inputs the golden output ``name`` belongs to."""
    inputs, name = read("inputs"), name.removesuffix("_window_minus_1")
    pieces = tuple(int(n) for n in inputs[f"case.{name}.pieces"])
    return Case(name, inputs[f"case.{name}.tokens"], inputs[f"case.{name}.positions"], pieces)


@functools.cache
def truth(name: str) -> Array:
    """Float64 logits [b t v] of the reference: the whole row in one pass, no state."""
    inputs = case(name)
    return reference.forward(CONFIG, weights(), inputs.tokens, inputs.positions)[0]


@functools.cache
def ours(backend: str, name: str) -> Array:
    """Float32 logits [b t v] of a backend: one call per piece, its state carried."""
    module: Any = registry.load_backend(backend)
    params = module.load_params(CONFIG, weights(), "float32")
    inputs = case(name)
    state = module.init_state(CONFIG, len(inputs.tokens), dtype="float32") if len(inputs.pieces) > 1 else None
    logits, start = [], 0
    for length in inputs.pieces:
        end = start + length
        tokens, positions = (module.from_numpy(x[:, start:end]) for x in (inputs.tokens, inputs.positions))
        piece, state = module.forward(CONFIG, params, tokens, positions, state)
        logits.append(module.to_numpy(piece))
        start = end
    return np.concatenate(logits, axis=1)


def distance(a: Array, b: Array, where: Array) -> float:
    """The largest absolute difference of logits over the tokens ``where`` (bool [b t]) is true."""
    return float(np.abs(a.astype(np.float64) - b)[where].max())
