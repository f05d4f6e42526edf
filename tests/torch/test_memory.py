"""Nothing grows with the square of the length, and long inputs pass in pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import griffin_core_torch as backend
from griffin_core import presets
from griffin_core_torch import blocks

TIME = 2000


@pytest.mark.parametrize("window", [33, None])
def test_attention_makes_no_square(window, largest, rng: np.random.Generator) -> None:
    q, k, v = (torch.tensor(rng.normal(size=(1, TIME, *tail))).float() for tail in ((2, 8), (8,), (8,)))
    for x in (q, k, v):
        x.requires_grad_()
    with largest() as seen:
        y, _ = backend.local_attention(q, k, v, window=window)
        y.sum().backward()
    assert seen.elements <= TIME * 2 * 256  # a block of scores, or [t n e]; the square has 4 million


def test_model_in_pieces_equals_the_whole(draw, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    config = presets.preset("griffin-tiny").config.replace(num_layers=3, attention_window=9)
    params = draw(config)
    tokens = torch.tensor(rng.integers(0, config.vocab_size, (2, 50)))
    positions = torch.tensor([[*range(20), *range(30)], [*range(47), -1, -1, -1]], dtype=torch.int32)
    whole, _ = backend.hidden(config, {n: p.requires_grad_() for n, p in params.items()}, tokens, positions)
    monkeypatch.setattr(blocks, "PIECE_TOKENS", 14)
    with torch.no_grad():
        for state in (None, backend.init_state(config, 2)):
            pieces, _ = backend.hidden(config, params, tokens, positions, state)
            # Twelve residual additions, each a product of up to 384 rounded terms.
            torch.testing.assert_close(pieces, whole.detach(), atol=384 * 2.0**-24, rtol=0.0)


def test_prefill_keeps_no_wide_activation(draw, largest) -> None:
    config = presets.preset("hawk-tiny").config.replace(num_layers=2)
    params = draw(config)
    time = 4 * blocks.PIECE_TOKENS
    tokens = torch.zeros(1, time, dtype=torch.long)
    with torch.no_grad(), largest() as seen:
        backend.hidden(config, params, tokens, state=backend.init_state(config, 1))
    assert seen.elements <= time * config.width  # the residual stream; the MLP alone would have three times that
