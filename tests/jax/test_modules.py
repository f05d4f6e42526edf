"""The Flax module is the functions with parameters attached."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("flax")

import griffin_core_jax as backend
from griffin_core_jax.modules import GriffinForCausalLM

TOKENS = np.arange(8, dtype=np.int32)[None]


def test_equals_the_functions_and_keeps_the_weights(config, drawn) -> None:
    canonical = drawn(config)
    module = GriffinForCausalLM.from_params(config, canonical)
    logits, state = module(TOKENS, state=backend.init_state(config, 1))
    expected, _ = backend.forward(
        config, backend.load_params(config, canonical), TOKENS, None, backend.init_state(config, 1)
    )
    assert (np.asarray(logits) == np.asarray(expected)).all()
    assert state["position"].tolist() == [8]
    kept = module.canonical_params()
    assert all((kept[name] == canonical[name]).all() for name in canonical)


def test_trains_with_nnx_and_optax(config) -> None:
    import optax
    from flax import nnx

    module = GriffinForCausalLM.from_config(config, seed=1)
    optimizer = nnx.Optimizer(module, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(module, optimizer):
        def loss(module):
            logits, _ = module(TOKENS[:, :-1])
            return optax.softmax_cross_entropy_with_integer_labels(logits, TOKENS[:, 1:]).mean()

        value, grads = nnx.value_and_grad(loss)(module)
        optimizer.update(module, grads)
        return value

    losses = [float(step(module, optimizer)) for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1
