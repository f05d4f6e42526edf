"""Choosing kernels: named ones never fall back, inner ones are composed, packed rows are split."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import griffin_core_torch as backend
from griffin_core import presets, registry
from griffin_core.errors import InputError, KernelNotSupported
from griffin_core.protocol import Kernel
from griffin_core.sampling import Sampling, SamplingRows
from griffin_core_torch.decoding.loop import token_kernels
from griffin_core_torch.kernels import EAGER_KERNELS
from griffin_core_torch.scan.linear_eager import linear_scan_forward

CONFIG = presets.preset("griffin-tiny").config.replace(num_layers=3, attention_window=9)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A registered linear_scan kernel "counted" that records the shape of each call; PyTorch differentiates it."""
    calls: list[tuple[int, ...]] = []

    def scan(x, log_a, h0, reset):
        calls.append(tuple(x.shape))
        h = torch.zeros_like(x[:, 0], dtype=torch.float32) if h0 is None else h0
        states = []
        for t in range(x.shape[1]):
            passed = torch.exp(log_a[:, t].float()) * h
            passed = passed if reset is None else torch.where(reset[:, t, None], 0.0, passed)
            h = passed + x[:, t].float()
            states.append(h)
        return torch.stack(states, 1).to(x.dtype), h

    known = (*registry.kernels("torch"), Kernel("linear_scan", "counted", scan))
    monkeypatch.setitem(registry._kernels, "torch", known)
    return calls


def _gated(rng: np.random.Generator, time: int = 12) -> list[torch.Tensor]:
    arrays = [rng.normal(size=(2, time, 6)) for _ in range(3)] + [rng.normal(size=6)]
    return [torch.tensor(a).float() for a in arrays]


def test_a_kernel_of_an_inner_operation_runs_inside(counted, rng: np.random.Generator) -> None:
    inputs = _gated(rng)
    positions = torch.tensor([[*range(12)], [*range(7), *range(3), -1, -1]], dtype=torch.int32)
    cotangents = [torch.ones(2, 12, 6), torch.ones(2, 6)]
    ours, theirs = (
        backend.vjp(lambda *a, name=name: backend.gated_scan(*a, None, positions, kernel=name), inputs, cotangents)
        for name in ("eager", "counted")
    )
    assert counted == [(2, 12, 6)]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=12 * 2.0**-22)


def test_auto_takes_the_first_and_a_new_kernel_is_seen(counted, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.normal(size=(1, 4, 2))).float()
    backend.linear_scan(x, -x.abs())
    assert counted == []
    backend.linear_scan(x, -x.abs(), kernel="counted")
    assert counted == [(1, 4, 2)]


def test_packed_rows_are_split_for_a_kernel_without_them(counted, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.normal(size=(1, 9, 2))).float()
    starts = torch.tensor([0, 4, 9], dtype=torch.int32)
    h0 = torch.tensor(rng.normal(size=(2, 2))).float()
    y, h = backend.linear_scan(x, -x.abs(), h0, starts=starts, kernel="counted")
    assert counted == [(1, 4, 2), (1, 5, 2)]
    cuts = ((0, slice(0, 4)), (1, slice(4, 9)))
    alone = [linear_scan_forward(x[:, cut], -x[:, cut].abs(), h0[i : i + 1]) for i, cut in cuts]
    torch.testing.assert_close(y, torch.cat([y for y, _ in alone], 1))
    torch.testing.assert_close(h, torch.cat([h for _, h in alone]))


def test_decode_honours_a_named_kernel(counted, draw) -> None:
    params = draw(CONFIG)
    state = backend.init_state(CONFIG, 1)
    rows = SamplingRows.start(Sampling(temperature=0.0), [[1]])
    assert token_kernels(CONFIG, params, 1, torch.float32, None) <= set(EAGER_KERNELS)
    assert None in token_kernels(CONFIG, params, 1, torch.float32, "counted")
    named = backend.decode(CONFIG, params, state, [1], 6, rows, kernel="counted")
    assert len(counted) == 6 * CONFIG.layer_kinds.count("recurrent")
    plain = backend.decode(CONFIG, params, state, [1], 6, rows)
    assert named[0].tolist() == plain[0].tolist()


def test_refusals(rng: np.random.Generator) -> None:
    x = torch.zeros(2, 3, 4)
    with pytest.raises(KernelNotSupported, match="no kernel 'eagre'"):
        backend.linear_scan(x, x, kernel="eagre")
    with pytest.raises(InputError, match=r"log_a has shape \(2, 3, 5\); expected \(2, 3, 4\)"):
        backend.linear_scan(x, torch.zeros(2, 3, 5))
    with pytest.raises(InputError, match="batch 2"):
        backend.linear_scan(x, x, starts=torch.tensor([0, 3]))
    with pytest.raises(InputError, match="rise from 0"):
        backend.linear_scan(x[:1], x[:1], starts=torch.tensor([0, 2, 1, 3]))
