"""Local attention as GPUs run it: the same values and gradients as block by block, and no visible key left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention as library

from griffin_core_torch.attention import flex
from griffin_core_torch.attention.banded import banded_attention
from griffin_core_torch.attention.segments import segments

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's own, of compiling and of doing without


def positions(batch: int, time: int, past: int) -> tuple[Tensor, Tensor]:
    """(positions, tokens seen before): a long document, two in one row, and one with padding."""
    steps = torch.arange(time)
    before = torch.tensor([past, past // 2, 0], dtype=torch.int32)[:batch]
    rows = [steps + past, torch.where(steps < time // 3, steps + past // 2, steps - time // 3), steps.clone()]
    rows[2][time - 4 :] = -1
    return torch.stack(rows[:batch]).to(torch.int32), before


@pytest.mark.parametrize("past", [0, 5])
@pytest.mark.parametrize(("time", "window"), [(37, 9), (300, 64), (150, 200), (140, None)])
def test_values_and_gradients(monkeypatch: pytest.MonkeyPatch, time: int, window: int | None, past: int) -> None:
    monkeypatch.setattr(library, "_validate_device", lambda *arrays: None)  # it refuses gradients on processors
    generator = torch.Generator().manual_seed(time)
    q = torch.randn(3, time, 2, 16, generator=generator, requires_grad=True)
    k, v = (torch.randn(3, time + past, 16, generator=generator, requires_grad=True) for _ in range(2))
    at, before = positions(3, time, past)
    own = flex.documents(at)
    seen = torch.cat([flex.cached_documents(before, past), own], 1)
    y = flex.flex_band(q, k, v, own, seen, window)
    expected = banded_attention(q, k, v, segments(at, 3, time, past), window)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    seed = torch.randn(y.shape, generator=generator)
    for found, want in zip(*(torch.autograd.grad(out, [q, k, v], seed) for out in (y, expected)), strict=True):
        torch.testing.assert_close(found, want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("time", "past", "window"), [(1, 0, 4), (300, 0, 64), (300, 63, 64), (700, 130, 200), (257, 9, None)]
)
def test_blocks_hold_every_visible_key(time: int, past: int, window: int | None) -> None:
    """A block that is not listed is not looked at; a block too many only costs time, one at each end at most."""
    reach = time + past if window is None else window
    mask = flex._block_mask(time, past, reach, lambda b, h, i, j: j >= 0, torch.device("cpu"))
    listed = mask.to_dense()[0, 0].bool()
    i, j = torch.arange(time)[:, None] + past, torch.arange(time + past)[None]
    visible = (j <= i) & (i - j < reach)
    size = flex.BLOCK
    for row in range(listed.shape[0]):
        for column in range(listed.shape[1]):
            needed = bool(visible[row * size : (row + 1) * size, column * size : (column + 1) * size].any())
            assert bool(listed[row, column]) == needed, (row, column)


def test_documents_of_the_cache() -> None:
    assert flex.documents(torch.tensor([[3, 4, 0, 1, -1]])).tolist() == [[0, 0, 1, 1, -1]]
    assert flex.cached_documents(torch.tensor([0, 2, 9]), 3).tolist() == [[-2, -2, -2], [-2, 0, 0], [0, 0, 0]]
