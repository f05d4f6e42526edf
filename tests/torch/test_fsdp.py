"""The model under PyTorch's own sharding of parameters (FSDP2): equal loss and gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed

from griffin_core.presets import preset
from griffin_core_torch.modules import GriffinForCausalLM
from griffin_core_torch.triton import loading, plan

CONFIG = preset("griffin-tiny").config.replace(num_layers=3, attention_window=5)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def loss(model: GriffinForCausalLM, kernel: str) -> torch.Tensor:
    tokens = torch.arange(18).view(2, 9)
    return model(tokens, kernel=kernel, padding="right")[0].square().mean()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("kernel", ["eager", pytest.param("triton", marks=pytest.mark.prove)])
def test_a_sharded_model_trains_as_the_whole_one(kernel: str) -> None:
    from torch.distributed.fsdp import fully_shard

    if kernel == "triton":
        pytest.importorskip("triton", reason="triton is not installed (extra triton)")
    whole = GriffinForCausalLM(CONFIG)
    sharded = copy.deepcopy(whole)
    for layer in sharded.model.layers:
        fully_shard(layer)
    fully_shard(sharded)
    with loading.interpreting(), plan.fixed(plan.Plan(rows=4, segments=2, width=16)):
        expected, found = loss(whole, kernel), loss(sharded, kernel)
        torch.testing.assert_close(found, expected)
        expected.backward()
        found.backward()
    for (name, want), got in zip(whole.named_parameters(), sharded.parameters(), strict=True):
        torch.testing.assert_close(got.grad.full_tensor(), want.grad, msg=name)
