"""The module form: canonical names, equality with the functional form, blocks alone, no state on modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import griffin_core_torch as backend
from griffin_core import presets
from griffin_core.layouts.initialise import init_params
from griffin_core.layouts.params import param_table
from griffin_core_torch.modules import RGLRU, GriffinForCausalLM, LocalAttentionBlock, MLPBlock, RecurrentBlock

CONFIG = presets.preset("recurrentgemma-tiny").config.replace(num_layers=3, attention_window=9)


@pytest.mark.parametrize("tied", [True, False])
def test_names_and_weights_are_canonical(tied: bool) -> None:
    config = CONFIG.replace(tie_embeddings=tied)
    module = GriffinForCausalLM.from_config(config, seed=3)
    found = {name: tuple(x.shape) for name, x in module.state_dict().items()}
    assert found == {row.name: row.shape for row in param_table(config)}
    assert list(found) == [row.name for row in param_table(config)] or set(found) == set(
        dict(module.named_parameters())
    )
    for name, value in init_params(config, 3).items():
        assert np.array_equal(module.state_dict()[name].numpy(), value)
    assert all(p.requires_grad for p in module.parameters())
    assert not list(module.buffers())


def test_equals_the_functional_form(draw, rng: np.random.Generator) -> None:
    params = draw(CONFIG)
    module = GriffinForCausalLM.from_params(CONFIG, backend.dump_params(CONFIG, params))
    tokens = torch.tensor(rng.integers(0, CONFIG.vocab_size, (2, 21)))
    positions = torch.tensor([[-1, -1, *range(19)], [*range(9), *range(12)]], dtype=torch.int32)
    ours, state = module(tokens, positions, backend.init_state(CONFIG, 2))
    theirs, after = backend.forward(
        CONFIG, dict(module.named_parameters()), tokens, positions, backend.init_state(CONFIG, 2)
    )
    assert torch.equal(ours, theirs)
    assert all(torch.equal(state[name], after[name]) for name in after)
    grads = [torch.autograd.grad(y.square().mean(), list(module.parameters())) for y in (ours, theirs)]
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_linear_layers_are_called(rng: np.random.Generator) -> None:
    """A wrapped linear layer (as adapters and quantisers make) is what runs."""

    class Doubled(nn.Module):
        def __init__(self, inner: nn.Linear) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2.0 * self.inner(x)

    module = MLPBlock(CONFIG)
    x = torch.tensor(rng.normal(size=(1, 4, CONFIG.width))).float()
    before = module(x)
    module.down_proj = Doubled(module.down_proj)
    torch.testing.assert_close(module(x), 2.0 * before)


def test_blocks_alone_continue_their_state(rng: np.random.Generator) -> None:
    x = torch.tensor(rng.normal(size=(2, 13, CONFIG.width))).float()
    for block, names in ((RecurrentBlock(CONFIG), ("h", "conv")), (LocalAttentionBlock(CONFIG), ("k", "v"))):
        layer = 0 if names[0] == "h" else 2
        start = backend.init_state(CONFIG, 2)
        state = {name: start[f"layers.{layer}.{name}"] for name in names} | {"position": start["position"]}
        whole, end = block(x, state=state)
        alone, nothing = block(x)
        first, middle = block(x[:, :5], state=state)
        rest, after = block(x[:, 5:], state={**middle, "position": state["position"] + 5})
        torch.testing.assert_close(torch.cat([first, rest], 1), whole, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone, whole, atol=1e-5, rtol=1e-5)
        assert not nothing
        for name in names:
            torch.testing.assert_close(after[name], end[name], atol=1e-5, rtol=1e-5)


def test_rg_lru_alone(rng: np.random.Generator) -> None:
    module = RGLRU(12, 3)
    x = torch.tensor(rng.normal(size=(2, 7, 12))).float()
    y, h = module(x)
    assert torch.equal(y[:, -1], h)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
