"""Gradients that only this backend can be asked for: central differences in float64, double backward, blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import griffin_core_torch as backend
from griffin_core.reference import gradients
from griffin_core_torch.activation import gelu_product
from griffin_core_torch.gates import block_gates
from griffin_core_torch.scan import rows

POSITIONS = torch.tensor([[3, 4, 0, 1, 2, 3], [0, 1, 2, -1, -1, -1]], dtype=torch.int32)


def _float64(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.tensor(rng.normal(size=shape), requires_grad=True)


def test_linear_scan(rng: np.random.Generator) -> None:
    x, h0 = _float64(rng, 2, 6, 3), _float64(rng, 2, 3)
    log_a = (-torch.tensor(rng.random((2, 6, 3)))).requires_grad_()
    reset = POSITIONS == 0
    assert gradcheck(lambda x, log_a, h0: backend.linear_scan(x, log_a, h0, reset), (x, log_a, h0))


def test_gated_scan_and_the_composed_form(rng: np.random.Generator) -> None:
    inputs = (*(_float64(rng, 2, 6, 3) for _ in range(3)), _float64(rng, 3), _float64(rng, 2, 3))
    assert gradcheck(lambda *a: backend.gated_scan(*a, POSITIONS), inputs)


def test_conv(rng: np.random.Generator) -> None:
    inputs = (_float64(rng, 2, 6, 3), _float64(rng, 3, 1, 4), _float64(rng, 3), _float64(rng, 2, 3, 3))
    assert gradcheck(lambda *a: backend.conv1d(*a, POSITIONS), inputs)


def test_attention(rng: np.random.Generator) -> None:
    cache = {name: torch.tensor(rng.normal(size=(2, 4, 4))) for name in ("k", "v")}
    cache["position"] = torch.tensor([3, 5], dtype=torch.int32)
    inputs = (_float64(rng, 2, 6, 2, 4), _float64(rng, 2, 6, 4), _float64(rng, 2, 6, 4))

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return backend.local_attention(q, k, v, POSITIONS, cache, 4)[0]

    assert gradcheck(attend, inputs)


def test_norm_activation_and_gates(rng: np.random.Generator) -> None:
    assert gradcheck(backend.rms_norm, (_float64(rng, 2, 3, 5), _float64(rng, 5)))
    assert gradcheck(gelu_product, (_float64(rng, 3, 4), _float64(rng, 3, 4)))
    names = ("input_gate_weight", "input_gate_bias", "recurrent_gate_weight", "recurrent_gate_bias")
    shapes = ((2, 3, 3), (2, 3), (2, 3, 3), (2, 3))
    weights = [_float64(rng, *shape) for shape in shapes]

    def gates(x: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return block_gates(x, dict(zip(names, values, strict=True)))

    assert gradcheck(gates, (_float64(rng, 2, 4, 6), *weights))


def test_second_derivatives_are_refused(rng: np.random.Generator) -> None:
    x, log_a = _float64(rng, 1, 3, 2), _float64(rng, 1, 3, 2)
    y, _ = backend.linear_scan(x, -log_a.abs())
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice a function that was marked"):
        first.sum().backward()


@pytest.mark.parametrize("elements", [1, 40, 10_000])
def test_time_blocks_meet(elements: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any size of time block gives the gradients of the whole, resets and padding at its edges included."""
    monkeypatch.setattr(rows, "BLOCK_ELEMENTS", elements)
    x, gate_x, gate_a, dy = (rng.normal(size=(2, 23, 5)).astype(np.float32) for _ in range(4))
    p, h0, dh = (rng.normal(size=shape).astype(np.float32) for shape in ((5,), (2, 5), (2, 5)))
    positions = np.array([[*range(5, 12), *range(8), *range(8)], [*range(20), -1, -1, -1]], np.int32)
    native = [torch.tensor(a) for a in (x, gate_x, gate_a, p, h0, positions)]
    got = backend.vjp(backend.gated_scan, native, [torch.tensor(dy), torch.tensor(dh)])
    expected = gradients.gated_scan_vjp(x, gate_x, gate_a, p, h0, positions, dy, dh)
    for ours, truth in zip(got, expected, strict=False):
        # Each gradient is a chain of at most 23 rounded steps over values of the size of the largest.
        assert np.abs(ours.numpy() - truth).max() <= 23 * 2.0**-24 * max(1.0, np.abs(truth).max())
    got = backend.vjp(
        lambda x, weight, bias: backend.conv1d(x, weight, bias, None, native[5])[0],
        [native[0], torch.tensor(rng.normal(size=(5, 1, 4))).float(), native[3]],
        [torch.tensor(dy)],
    )
    assert all(g.isfinite().all() for g in got)


def test_unused_and_absent_inputs() -> None:
    x = torch.ones(2)
    grads = backend.vjp(lambda x, y, n, i: x * 2, [x, torch.ones(3), None, torch.tensor([1])], [torch.ones(2)])
    assert grads[0].tolist() == [2.0, 2.0]
    assert grads[1].tolist() == [0.0, 0.0, 0.0]
    assert grads[2:] == (None, None)
