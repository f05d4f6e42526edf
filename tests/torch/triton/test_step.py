"""The one-token kernel in Triton's interpreter, one token after another, against the operation on all of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

import griffin_core_torch as backend
from griffin_core.errors import InputError
from griffin_core.testing import judge
from griffin_core_torch.triton import loading, step
from griffin_core_torch.triton.step import from_ring, recurrent_step, to_ring

PROPERTIES = ("reference", "documents", "padding")


def token_by_token(
    x: Tensor,
    params: Mapping[str, Tensor],
    h0: Tensor | None = None,
    conv_state: Tensor | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``recurrent_middle`` by ``recurrent_step`` alone."""
    (batch, time, width), taps = x.shape, params["conv_weight"].shape[2]
    first = 0 if h0 is None and conv_state is None else 1
    if positions is None:
        positions = torch.arange(first, time + first).expand(batch, time)
    begin = torch.where(positions[:, 0] < 0, 0, positions[:, 0]) if time else torch.zeros(batch, dtype=torch.int32)
    h = torch.zeros(batch, width) if h0 is None else h0.contiguous().clone()
    state = x.new_zeros(batch, taps - 1, width) if conv_state is None else conv_state.to(x.dtype)
    outputs, place = [], begin
    ring = to_ring(state, place)
    for t in range(time):
        now = positions[:, t]
        if bool(((now >= 0) & (now != place)).any()):  # another document: the ring is turned to where it begins
            ring = to_ring(from_ring(ring, place), torch.where(now < 0, place, now))
        with loading.interpreting():
            outputs.append(recurrent_step(x[:, t], params, h, ring, now))
        place = torch.where(now < 0, place, now + 1)
    y = torch.stack(outputs, dim=1) if outputs else torch.empty_like(x)
    return y, h, from_ring(ring, place)


@pytest.mark.prove
def test_the_kit_judges_it() -> None:
    report = judge(token_by_token, op="recurrent_middle", backend="torch", properties=PROPERTIES, large=False)
    assert report.passed, str(report)
    assert {record.property for record in report.records} == set(PROPERTIES)


def weights(blocks: int, block: int, taps: int, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(block)
    width = blocks * block
    shapes = {"conv_weight": (width, 1, taps), "conv_bias": (width,), "recurrent_param": (width,)}
    for gate in ("input_gate", "recurrent_gate"):
        shapes |= {f"{gate}_weight": (blocks, block, block), f"{gate}_bias": (blocks, block)}
    return {name: torch.randn(shape, generator=generator).to(dtype) / 4 for name, shape in shapes.items()}


@pytest.mark.parametrize(("batch", "blocks", "block"), [(1, 2, 20), (5, 1, 70), (18, 3, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sizes(monkeypatch: pytest.MonkeyPatch, batch: int, blocks: int, block: int, dtype: torch.dtype) -> None:
    """Blocks wider than the channels taken at a time, not a power of two, one row, and more than a program has."""
    monkeypatch.setattr(step, "KEYS", {1: 8, step.BATCH_ROWS: 16})
    generator = torch.Generator().manual_seed(batch)
    params = weights(blocks, block, 4, dtype)
    x, conv = (torch.randn(batch, n, blocks * block, generator=generator).to(dtype) for n in (3, 3))
    h0 = torch.randn(batch, blocks * block, generator=generator)
    positions = torch.arange(1, 4).expand(batch, 3).to(torch.int32)
    got = token_by_token(x, params, h0, conv, positions)
    expected = backend.recurrent_middle(x, params, h0, conv, positions)
    loose = 2e-5 if dtype == torch.float32 else 0.03  # ours does not round the gates to bfloat16
    for found, want in zip(got[:2], expected[:2], strict=True):
        torch.testing.assert_close(found, want, rtol=loose, atol=loose)
    assert torch.equal(got[2], expected[2])


def test_slots_are_written_where_they_stand() -> None:
    generator = torch.Generator().manual_seed(0)
    params = weights(2, 8, 4, torch.float32)
    states, rings, x = (torch.randn(shape, generator=generator) for shape in ((5, 16), (5, 4, 16), (3, 16)))
    h, ring, slots = states.clone(), rings.clone(), torch.tensor([4, 0, 2], dtype=torch.int32)
    positions = torch.tensor([7, 0, -1], dtype=torch.int32)
    with loading.interpreting():
        y = recurrent_step(x, params, h, ring, positions, slots)
        picked = states[slots.long()], rings[slots.long()].contiguous()
        alone = recurrent_step(x, params, *picked, positions)
    assert torch.equal(y, alone)
    assert (y[2] == 0).all()
    assert torch.equal(h[slots.long()], picked[0])
    assert torch.equal(ring[slots.long()], picked[1])
    for untouched in (1, 2, 3):
        assert torch.equal(h[untouched], states[untouched])
        assert torch.equal(ring[untouched], rings[untouched])
    assert torch.equal(ring[0, 0], x[1])
    assert (ring[0, 1:] == 0).all()


def test_rings_hold_the_last_inputs_by_position() -> None:
    state = torch.arange(1.0, 4.0)[None, :, None].repeat(2, 1, 1)
    positions = torch.tensor([3, 6])
    ring = to_ring(state, positions)
    assert ring[..., 0].tolist() == [[1, 2, 3, 0], [2, 3, 0, 1]]
    assert torch.equal(from_ring(ring, positions), state)


def test_what_does_not_fit_is_named() -> None:
    params = weights(2, 8, 4, torch.float32)
    x, h, ring = torch.zeros(2, 16), torch.zeros(2, 16), torch.zeros(2, 4, 16)
    positions = torch.zeros(2, dtype=torch.int32)
    for wrong, message in [
        ({"x": torch.zeros(2, 15)}, r"x has shape \(2, 15\); expected \(2, 16\)"),
        ({"h": torch.zeros(3, 16)}, "h has 3 rows and x has 2; expected as many, or slots"),
        ({"ring": torch.zeros(2, 3, 16)}, r"ring has shape \(2, 3, 16\); expected \(2, 4, 16\)"),
        ({"h": h.double()}, "h is torch.float64 and ring is torch.float32"),
        ({"ring": torch.zeros(2, 16, 4).transpose(1, 2)}, "expected contiguous tensors"),
        ({"positions": positions[:1]}, r"positions has shape \(1,\); expected \(2,\)"),
        ({"slots": positions[:1]}, r"slots has shape \(1,\); expected \(2,\)"),
    ]:
        given = {"x": x, "params": params, "h": h, "ring": ring, "positions": positions, **wrong}
        with pytest.raises(InputError, match=message):
            recurrent_step(**given)
