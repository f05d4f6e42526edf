"""A model that writes scripted text, on a backend whose state betrays exactly what it has consumed."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from griffin_core import presets, reference, registry
from griffin_core.checkpoints.manifest import digest_params
from griffin_core.config import GriffinConfig
from griffin_core.generation.engine import Engine
from griffin_core.layouts.initialise import init_params
from griffin_core.shapes import UNIT_ROUNDOFF
from griffin_core.text.tokenizer import ByteTokenizer

MODULUS = 2**61 - 1


def consume(digest: int, token: int) -> int:
    return (digest * 1_000_003 + token + 1) % MODULUS


class ScriptedBackend:
    """State per row: position, digest of all consumed tokens, and which script it follows (its first token)."""

    def __init__(self, scripts: dict[int, list[int]]) -> None:
        self.scripts = scripts
        self.decoded = 0

    def init_state(self, config, batch, capacity=None, dtype=None, device=None):
        return {name: np.zeros(batch, np.int64) for name in ("position", "digest", "script")}

    def from_numpy(self, x, dtype=None, device=None):
        return x

    def to_numpy(self, x):
        return np.array(x)

    def take(self, state, rows):
        return {name: value[list(rows)] for name, value in state.items()}

    def put(self, state, rows, other):
        new = {name: value.copy() for name, value in state.items()}
        for name, value in other.items():
            new[name][list(rows)] = value
        return new

    def hidden(
        self, config, params, tokens, positions=None, state=None, padding="any", kernel=None, compute_dtype=None
    ):
        state = {name: value.copy() for name, value in state.items()}
        for row, ids in enumerate(tokens):
            start = state["position"][row]
            where = start + np.arange(len(ids)) if positions is None else positions[row]
            real = where >= 0
            assert (where[real] == start + np.arange(real.sum())).all(), "positions do not continue the state"
            assert not real[real.sum() :].any(), "padding is not on the right"
            for token in ids[real]:
                self._step(state, row, token)
        return None, state

    def decode(self, config, params, state, token, n, sampling, active=None, kernel=None, compute_dtype=None):
        state = {name: value.copy() for name, value in state.items()}
        made = np.full((len(token), n), -1, np.int32)
        for row in np.flatnonzero(active):
            current = token[row]
            for step in range(n):
                self._step(state, row, current)
                script = self.scripts[state["script"][row]]
                current = made[row, step] = script[(state["position"][row] - 1) % len(script)]
        self.decoded += n
        return made, np.where(made < 0, 0.0, -0.5).astype(np.float32), state

    def _step(self, state, row, token):
        if state["position"][row] == 0:
            state["script"][row] = token
        state["digest"][row] = consume(int(state["digest"][row]), int(token))
        state["position"][row] += 1


@dataclass(frozen=True)
class ScriptedEngine(Engine):
    fake: ScriptedBackend = field(kw_only=True)

    @property
    def module(self):
        return self.fake


@pytest.fixture(scope="session")
def scripted():
    """``scripted([bytes or ids, ...])``: a model and prompts; a prompt of one token i makes it write script i."""

    def make(scripts):
        fake = ScriptedBackend({row: list(script) for row, script in enumerate(scripts)})
        config = presets.preset("griffin-tiny").config
        engine = ScriptedEngine(config, None, "scripted", fake=fake)
        return SimpleNamespace(config=config, tokenizer=ByteTokenizer(), engine=lambda: engine, fake=fake)

    return make


@pytest.fixture(scope="session")
def digest_of():
    """The digest of a state that has consumed these tokens."""

    def digest(tokens):
        value = 0
        for token in tokens:
            value = consume(value, token)
        return value

    return digest


def lively_params(config, seed=0):
    """Random weights, scaled until sampled text is neither constant nor uniform noise."""
    params = init_params(config, seed)
    for name, value in params.items():
        if "recurrent_param" not in name and "norm" not in name:
            value *= 6.0 if "embed" in name else 3.0
    return params


TINY = GriffinConfig(
    width=16,
    lru_width=16,
    mlp_width=32,
    num_heads=2,
    head_dim=8,
    gate_blocks=2,
    block_pattern=("recurrent", "recurrent", "attention"),
    num_layers=3,
    attention_window=8,
    vocab_size=264,
)


@pytest.fixture(scope="session")
def tiny():
    """``tiny(backend="numpy", seed=0, dtype="float32", **changes)``: a real model of 16 channels."""

    @functools.cache
    def make(backend="numpy", seed=0, dtype="float32", **changes):
        config = TINY.replace(**changes)
        return make_model(config, lively_params(config, seed), backend, dtype)

    return make


def make_model(config, params, backend, dtype="float32"):
    module = registry.load_backend(backend)
    engine = Engine(config, module.load_params(config, params, dtype=dtype), backend, dtype)
    return SimpleNamespace(
        config=config,
        canonical=params,
        tokenizer=ByteTokenizer(),
        module=module,
        engine=lambda: engine,
        digest=digest_params(params),
    )


@pytest.fixture(scope="session")
def logits_after():
    """``logits_after(model, tokens)``: float64 reference logits after a text, and how far float32 may be from them.

    The bound is 4 x the largest change that weights perturbed by one float32 rounding make, over 4 draws.
    """

    def logits(config, params, tokens):
        positions = np.arange(len(tokens))[None]
        x, _ = reference.hidden(config, params, np.array([tokens]), positions)
        return reference.logits(config, params, x[:, -1:])[0, 0]

    def after(model, tokens):
        generator = np.random.default_rng(0)
        value = logits(model.config, model.canonical, tokens)
        worst = 0.0
        for _ in range(4):
            shaken = {
                name: v.astype(np.float64) * (1 + UNIT_ROUNDOFF["float32"] * generator.uniform(-1, 1, v.shape))
                for name, v in model.canonical.items()
            }
            worst = max(worst, np.abs(logits(model.config, shaken, tokens) - value).max())
        return value, 4 * worst

    return after
