"""Random initial weights, keyed by (seed, parameter name): independent of order and of sharding."""

from __future__ import annotations

import hashlib

import numpy as np

from griffin_core.config import RG_LRU_C, GriffinConfig
from griffin_core.errors import ConfigError, nearest
from griffin_core.layouts.params import ParamSpec, param_table
from griffin_core.shapes import Array

INITS = ("paper", "released")


def init_params(config: GriffinConfig, seed: int, init: str = "paper") -> dict[str, Array]:
    """Float32 weights by canonical name.

    Args:
        seed: any non-negative integer; equal seeds give equal weights on every machine.
        init: "paper" (a^c uniform in [0.9, 0.999]) or "released" (a^2 uniform, a in [0.9, 0.999], and the
            Flax code's standard deviations).

    Raises:
        ConfigError: unknown ``init`` or a negative seed.
    """
    if init not in INITS:
        raise ConfigError(f"unknown init {init!r}; {nearest(init, INITS)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed={seed!r}; expected a non-negative integer")
    return {row.name: init_param(row, seed, init) for row in param_table(config)}


def init_param(row: ParamSpec, seed: int, init: str = "paper") -> Array:
    """One parameter's initial value, float32 of ``row.shape``."""
    rule = row.paper if init == "paper" else row.released
    if rule.rule == "zeros":
        return np.zeros(row.shape, np.float32)
    generator = _generator(seed, row.name)
    if rule.rule == "normal":
        draws = generator.standard_normal(row.shape, dtype=np.float32)
        return np.multiply(draws, np.float32(rule.std), out=draws)
    return recurrent_param_from_uniform(generator.random(row.shape), init).astype(np.float32)


def recurrent_param_from_uniform(uniform: Array, init: str) -> Array:
    """The decay parameter p, with softplus(p) = -log a, from uniform draws in [0, 1), in float64.

    "paper": a^c = 0.9 + 0.099 u (Griffin, section 2.4). "released": a^2 uniform in [0.81, 0.998001].
    """
    low, high = 0.9, 0.999
    u = uniform.astype(np.float64)
    log_a = (
        np.log(low + (high - low) * u) / RG_LRU_C if init == "paper" else 0.5 * np.log(low**2 + (high**2 - low**2) * u)
    )
    return np.log(np.expm1(-log_a))


def _generator(seed: int, name: str) -> np.random.Generator:
    key = hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, np.uint64)))
