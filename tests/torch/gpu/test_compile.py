"""On the card, the whole model in PyTorch's compiler and in its sharding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.torch.gpu import whole

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]  # PyTorch's own, of tracing and of groups

NEAR, NEAR_SHARDED = 1e-4, 1e-5
"""Compiled sums run in another order; a gathered weight may lie so that a product takes another algorithm."""


def test_a_model_is_one_graph_forward_and_backward() -> None:
    torch.compiler.reset()
    module = whole.model("cuda")
    loss = whole.loss_of(module, "triton", "cuda")
    expected = loss()
    wanted = whole.gradients(module, expected)
    compiled = torch.compile(loss, fullgraph=True)()
    torch.testing.assert_close(compiled, expected, rtol=NEAR, atol=0.0)
    whole.close(whole.gradients(module, compiled), wanted, NEAR)


@pytest.mark.parametrize("kernel", ["triton", "triton-exact"])
def test_sharded_parameters_change_nothing(kernel: str, tmp_path: Path) -> None:
    plain, module = whole.model("cuda"), whole.model("cuda")
    expected = whole.loss_of(plain, kernel, "cuda")()
    wanted = whole.gradients(plain, expected)
    with whole.alone("cuda", tmp_path):
        whole.shard(module, "cuda")
        found = whole.loss_of(module, kernel, "cuda")()
        torch.testing.assert_close(found, expected, rtol=NEAR_SHARDED, atol=0.0)
        got = whole.gradients(module, found)
    whole.close(got, wanted, NEAR_SHARDED)
