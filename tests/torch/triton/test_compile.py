"""The kernels inside PyTorch's own machinery: operators, compiled graphs, activation checkpoints."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention as library
from torch.utils.checkpoint import checkpoint

import griffin_core_torch as backend
from griffin_core.presets import preset
from griffin_core_torch.triton import conv_ops, ops, rg_lru_ops, step

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's own, of tracing

CONFIG = preset("griffin-tiny").config.replace(num_layers=3, attention_window=5)
MARKS = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, -1, -1]], dtype=torch.int32)


def randn(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("starts", [None, torch.tensor([0, 3, 9])], ids=["rows", "packed"])
def test_operators_keep_pytorchs_rules(starts: Tensor | None) -> None:
    """Schema, shapes without data, registered gradients, and compiled gradients, as PyTorch checks them itself."""
    batch = 1 if starts is not None else 2
    x, gate_x, gate_a, param = randn((batch, 9, 8), (batch, 9, 8), (batch, 9, 8), (8,))
    torch.library.opcheck(ops.scan, (x, gate_x, gate_a, param, None, None, starts, "gated", "exact", 4))
    torch.library.opcheck(ops.scan, (x, None, gate_a, None, None, None, starts, "linear", "aggregate", 4))
    weights = randn((2, 4, 4), (2, 4), (2, 4, 4), (2, 4))
    torch.library.opcheck(rg_lru_ops.rg_lru, (x, *weights, param, None, None, starts, 4))
    weight, bias = randn((8, 1, 4), (8,))
    torch.library.opcheck(conv_ops.conv, (x, weight, bias, None, None, starts))


@pytest.mark.usefixtures("interpreted")
def test_the_update_says_what_it_writes() -> None:
    shapes = [(2, 8), (8, 1, 4), (8,), (2, 4, 4), (2, 4), (2, 4, 4), (2, 4), (8,), (2, 8), (2, 4, 8)]
    arrays = [x.detach() for x in randn(*shapes)]
    torch.library.opcheck(step.update, (*arrays, torch.tensor([3, 0]), None))


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    "positions",
    [pytest.param(None, marks=pytest.mark.prove), MARKS],
    ids=["one document", "several, and padding"],
)
def test_a_model_is_one_graph(
    monkeypatch: pytest.MonkeyPatch, draw: Callable[..., dict[str, Tensor]], positions: Tensor | None
) -> None:
    """Forward and backward of the whole model, without a break, with the gradients of the eager kernels."""
    monkeypatch.setattr(library, "_validate_device", lambda *arrays: None)  # it refuses gradients on processors
    torch.compiler.reset()
    params = {name: value.requires_grad_() for name, value in draw(CONFIG).items()}
    tokens = torch.arange(18).view(2, 9)

    def loss(kernel: str) -> Tensor:
        return backend.forward(CONFIG, params, tokens, positions, None, "right", kernel)[0].square().mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")("triton")
    expected = loss("eager")
    torch.testing.assert_close(compiled, expected)
    leaves = list(params.values())
    for found, want in zip(*(torch.autograd.grad(out, leaves) for out in (compiled, expected)), strict=True):
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("interpreted")
def test_checkpoints_compute_the_same_again() -> None:
    x, gate_x, gate_a, param = randn((2, 9, 8), (2, 9, 8), (2, 9, 8), (8,))

    def scan(*arrays: Tensor) -> Tensor:
        y, h = backend.gated_scan(*arrays, kernel="triton-exact")
        return y.sum() + h.square().sum()

    leaves = (x, gate_x, gate_a, param)
    plain = torch.autograd.grad(scan(*leaves), leaves)
    again = torch.autograd.grad(checkpoint(scan, *leaves, use_reentrant=False), leaves)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
