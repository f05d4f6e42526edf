"""The ring cache: position p of the current document stands in slot p mod s."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin_core.checks import PAD, check_capacity, check_window


def recall(cache: Tensor, seen: Tensor, count: int) -> Tensor:
    """The last ``count`` entries before position ``seen``, oldest first.

    Args:
        cache: [b s e].
        seen: int [b], tokens of the current document already stored.
        count: at most s. Entries before position 0 are whatever stands in their slots.

    Returns:
        [b count e].
    """
    slots = (seen.long()[:, None] + torch.arange(-count, 0, device=seen.device)) % cache.shape[1]
    rows = torch.arange(cache.shape[0], device=seen.device)[:, None]
    return cache[rows, slots]


def ends(positions: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """(real, after): real tokens of each right-padded row int64 [b], and the position after the last."""
    real = (positions != PAD).sum(dim=1)
    if not positions.shape[1]:
        return real, before.clone()
    last = positions.gather(1, (real - 1).clamp_min(0)[:, None])[:, 0]
    return real, torch.where(real > 0, last + 1, before).to(before.dtype)


def store(cache: Tensor, x: Tensor, real: Tensor, after: Tensor) -> Tensor:
    """A new cache in which each slot holds the latest position of the last document that maps to it.

    Args:
        cache: [b s e].
        x: [b t e], real tokens first.
        real, after: from ``ends``.

    Returns:
        [b s e]; slots whose position was not among x keep what they held.
    """
    size = cache.shape[1]
    slots = torch.arange(size, device=x.device)
    back = (after.long()[:, None] - 1 - slots) % size  # steps back from the last token to the slot's own
    index = real[:, None] - 1 - back
    if not x.shape[1]:
        return cache.clone()
    taken = (index >= 0) & (back < after[:, None])
    rows = torch.arange(x.shape[0], device=x.device)[:, None]
    new = x[rows, index.clamp_min(0)].to(cache.dtype)
    return torch.where(taken[..., None], new, cache)


def check_room(size: int, window: int | None, after: Tensor) -> None:
    """Refuse a cache that cannot hold what a query must see.

    Raises:
        InputError: naming the capacity, or the window.
    """
    if window is not None:
        check_window(size, window)
    elif after.numel():
        check_capacity(size, after.cpu().numpy())
