"""On the card, ``decode`` replays its CUDA graph and gives the eager backend's tokens."""

from __future__ import annotations

import pytest
import torch

from griffin_core.testing import ModelCase
from griffin_core_torch.decoding import kept
from tests.torch.gpu.decoded import CASES, agree, decode, graphs

pytestmark = pytest.mark.gpu


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The graphs that are recorded inside the test."""
    made: list[object] = []

    class Counted(torch.cuda.graph):
        def __init__(self, graph: torch.cuda.CUDAGraph) -> None:
            super().__init__(graph)
            made.append(graph)

    monkeypatch.setattr(torch.cuda, "graph", Counted)
    monkeypatch.setattr(kept, "_kept", {})
    return made


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_replayed_graph_gives_the_eager_tokens(recorded: list[object], case: ModelCase) -> None:
    """The second call, which only replays, gives the first one's bits."""
    first, second = decode(case, "cuda", "triton", calls=2)
    assert len(recorded) == 1
    assert graphs() == recorded
    agree(case, first, decode(case, "cpu", "eager")[0])
    assert (first.tokens == second.tokens).all()
    assert (first.logprobs == second.logprobs).all()
    for name, value in first.state.items():
        assert (second.state[name] == value).all(), name
