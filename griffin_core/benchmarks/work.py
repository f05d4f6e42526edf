"""Our side of every measurement: calls on a backend's own functions, ready to be timed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from griffin_core.benchmarks.cases import Sizes
from griffin_core.config import GriffinConfig
from griffin_core.layouts.initialise import init_params
from griffin_core.protocol import capability
from griffin_core.sampling import Sampling, SamplingRows
from griffin_core.schedules import TrainerOptions
from griffin_core.shapes import Array

Call = Callable[[], object]
_SEED = 0
_DECAY = 0.1
"""Log decays of the bare scan lie in [-0.1, 0): a in [0.9, 1)."""


@dataclass(frozen=True)
class Setup:
    """What every path needs.

    Attributes:
        name, module: the backend.
        config: the model.
        sizes: batch, tokens, context.
        dtype: compute dtype.
        kernel: asked for by name, or None.
    """

    name: str
    module: ModuleType
    config: GriffinConfig
    sizes: Sizes
    dtype: str
    kernel: str | None = None

    def native(self, array: Array) -> Any:
        """The array on the backend, its dtype kept."""
        return self.module.from_numpy(array)

    def tokens(self, length: int) -> Array:
        """Random ids int32 [b, length], the same in every run."""
        generator = np.random.default_rng(_SEED)
        return generator.integers(3, self.config.vocab_size, (self.sizes.batch, length)).astype(np.int32)

    @functools.cached_property
    def params(self) -> Any:
        """Random weights in native form, in the compute dtype; every call on this setup reads the same ones."""
        return self.module.load_params(self.config, init_params(self.config, _SEED, "released"), self.dtype)


def prefill(setup: Setup, every: bool) -> Call:
    """A call that reads a prompt and ends with the state and the last token's logits, or every token's."""
    module, config, params = setup.module, setup.config, setup.params
    tokens = setup.native(setup.tokens(setup.sizes.tokens))

    def run() -> object:
        state = module.init_state(config, setup.sizes.batch, capacity=setup.sizes.tokens, dtype=setup.dtype)
        x, state = module.hidden(config, params, tokens, None, state, padding="right", kernel=setup.kernel)
        logits = module.logits(config, params, x if every else x[:, -1:])
        return module.to_numpy(logits[:, -1:]), state

    return run


def decode(setup: Setup) -> Call:
    """A call that decodes ``tokens`` tokens greedily from one state, with the backend's own loop."""
    module, config, params = setup.module, setup.config, setup.params
    loop = capability(setup.name, module, "decode")
    prompt = setup.tokens(setup.sizes.context + 1)
    capacity = setup.sizes.context + setup.sizes.tokens + 1
    state = module.init_state(config, setup.sizes.batch, capacity=capacity, dtype=setup.dtype)
    _, state = module.hidden(config, params, setup.native(prompt[:, :-1]), None, state, padding="right")
    settings = Sampling(temperature=0.0)

    def run() -> object:
        rows = SamplingRows.start(settings, [[int(token)] for token in prompt[:, -1]])
        out = loop(config, params, state, prompt[:, -1], setup.sizes.tokens, rows, kernel=setup.kernel)
        return module.to_numpy(out[0])

    return run


def train(setup: Setup) -> Call:
    """A call that takes one optimiser step on full rows."""
    trainer = capability(setup.name, setup.module, "Trainer")(
        setup.config,
        init_params(setup.config, _SEED, "released"),
        TrainerOptions(steps=1000, compute_dtype=setup.dtype),
    )
    text = setup.tokens(setup.sizes.tokens + 1)
    positions = np.broadcast_to(np.arange(setup.sizes.tokens, dtype=np.int32), (setup.sizes.batch, setup.sizes.tokens))
    batch = {
        "tokens": np.ascontiguousarray(text[:, :-1]),
        "targets": np.ascontiguousarray(text[:, 1:]),
        "positions": np.ascontiguousarray(positions),
    }
    return lambda: trainer.step(batch)


def scan(setup: Setup, kernel: str) -> Call:
    """A call of ``linear_scan``, the exponential of the log decay included."""
    sizes, module = setup.sizes, setup.module
    generator = np.random.default_rng(_SEED)
    shape = (sizes.batch, sizes.tokens, sizes.width)
    x = module.from_numpy(generator.standard_normal(shape, dtype=np.float32), setup.dtype)
    log_a = module.from_numpy(-_DECAY * generator.random(shape, dtype=np.float32), setup.dtype)
    # Reading the state waits for backends that work asynchronously.
    return lambda: module.to_numpy(module.linear_scan(x, log_a, kernel=kernel)[1])
