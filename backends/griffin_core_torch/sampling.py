"""Choosing the next token on the device: the algorithm of ``griffin_core.sampling``'s reference."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin_core.sampling import Sampling, SamplingRows

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_WORD = 0xFFFFFFFF
_FOLD = 128


def uniform(seeds: Tensor, positions: Tensor) -> Tensor:
    """float64 [b] in [0, 1): the first word of Threefry-2x32-20 for key ``seed`` and counter (position, 0).

    Args:
        seeds, positions: int64 [b]. The 32-bit words are kept in int64 and masked.
    """
    keys = [seeds & _WORD, (seeds >> 32) & _WORD]
    keys.append(keys[0] ^ keys[1] ^ _PARITY)
    a, b = (positions + keys[0]) & _WORD, keys[1]
    for group in range(5):
        for bits in _ROTATIONS[group % 2]:
            a = (a + b) & _WORD
            b = (((b << bits) | (b >> (32 - bits))) & _WORD) ^ a
        a = (a + keys[(group + 1) % 3]) & _WORD
        b = (b + keys[(group + 2) % 3] + group + 1) & _WORD
    return (a >> 8).double() * 2.0**-24


def first_best(scores: Tensor) -> Tensor:
    """int64 [b]: the lowest id among each row's best scores [b v].

    Where v divides, the best block is found before the place in it: PyTorch's maximum without an index is
    vectorised, the one with an index is not (16 against 62 microseconds for 32 000 scores on one core).
    """
    batch, vocabulary = scores.shape
    if vocabulary % _FOLD:
        return scores.argmax(dim=1)
    blocks = scores.view(batch, -1, _FOLD)
    block = blocks.amax(dim=2).argmax(dim=1)
    inside = blocks.gather(1, block.view(batch, 1, 1).expand(-1, 1, _FOLD))
    return inside[:, 0].argmax(dim=1) + block * _FOLD


def log_probability(scores: Tensor, tokens: Tensor) -> Tensor:
    """[b]: log softmax of scores [b v] at the tokens int64 [b]. The scores are overwritten."""
    chosen = scores.gather(1, tokens[:, None])
    top = scores.amax(dim=1, keepdim=True)
    total = scores.sub_(top).exp_().sum(dim=1, keepdim=True)
    return (chosen - top).sub_(total.log_())[:, 0]


def penalise(scores: Tensor, recent: Tensor, penalty: float) -> Tensor:
    """Divide positive and multiply other scores [b v] of the recent tokens int64 [b n] by the penalty (-1: none)."""
    wide = torch.nn.functional.pad(scores, (0, 1))  # the last column takes what is written for -1
    ids = torch.where(recent < 0, scores.shape[1], recent)
    found = wide.gather(1, ids)
    return wide.scatter(1, ids, torch.where(found > 0, found / penalty, found * penalty))[:, :-1]


def candidates(scores: Tensor, settings: Sampling) -> tuple[Tensor | None, Tensor]:
    """(ids, weights): int64 [b c] in rising order (None: all tokens) and float64 [b c], 0 where filtered out."""
    ids = None
    if settings.top_k and settings.top_k < scores.shape[1]:
        ids = _top_ids(scores, settings.top_k)
        scores = scores.gather(1, ids)
    top = scores.amax(dim=1, keepdim=True)
    weights = scores.sub(top).div_(settings.temperature).exp_()
    if settings.top_p < 1.0:
        ranking = torch.sort(scores, dim=1, descending=True, stable=True).indices
        ranked = weights.gather(1, ranking)
        reached = ranked.cumsum(1).div_(ranked.sum(1, keepdim=True))
        cut = reached.lt(settings.top_p).roll(1, dims=1)  # token r stays while the r before it do not reach p
        cut[:, 0] = True
        weights = torch.zeros_like(weights).scatter_(1, ranking, ranked.mul_(cut))
    if settings.min_p > 0.0:
        weights = weights.mul_(weights >= settings.min_p)
    return ids, weights


def _top_ids(scores: Tensor, k: int) -> Tensor:
    """int64 [b k], rising: the k best scores, equal ones by lower id."""
    worst = torch.topk(scores, k, dim=1).values[:, -1:]
    above, level = scores > worst, scores == worst
    room = k - above.sum(1, keepdim=True)
    keep = above | (level & (level.cumsum(1) <= room))
    return keep.nonzero()[:, 1].view(-1, k)


class Sampler:
    """One ``decode`` call's sampler: settings, seeds and the memory of recent tokens.

    Args:
        rows: as given to ``decode``; not written.
        device: where scores are.
    """

    def __init__(self, rows: SamplingRows, device: torch.device) -> None:
        self.settings = rows.settings
        self.seeds = torch.as_tensor(rows.seeds, dtype=torch.int64).to(device, copy=True)
        self.remembers = self.settings.repetition_penalty != 1.0 and rows.recent.shape[1] > 0
        self.recent = torch.as_tensor(rows.recent).to(device, torch.int64, copy=True)

    def __call__(self, scores: Tensor, positions: Tensor) -> Tensor:
        """int64 [b]: one token for each row of scores float32 [b v]; ``positions`` are those the tokens will have."""
        settings = self.settings
        if self.remembers:
            scores = penalise(scores.double(), self.recent, settings.repetition_penalty)
        if settings.greedy:
            return first_best(scores)
        ids, weights = candidates(scores.double(), settings)
        reached = weights.cumsum(1)
        drawn = uniform(self.seeds, positions.long())[:, None] * reached[:, -1:]
        choice = (reached > drawn).byte().argmax(dim=1)
        return choice if ids is None else ids.gather(1, choice[:, None])[:, 0]

    def push(self, tokens: Tensor, live: Tensor | None) -> None:
        """Remember the chosen tokens of the live rows."""
        if not self.remembers:
            return
        moved = torch.cat([self.recent[:, 1:], tokens[:, None]], dim=1)
        self.recent = moved if live is None else torch.where(live[:, None], moved, self.recent)
