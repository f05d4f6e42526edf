"""Which inputs a tap of the convolution may see, and the state that is left at the end of a row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from griffin_core.checks import PAD


@dataclass(frozen=True)
class Sight:
    """What is hidden from the taps of one call.

    Attributes:
        positions: int [b t], or None when no document starts inside.
        pad: bool [b t], or None when there is no padding.
        steps: host time steps at which some row hides some tap, in order.
    """

    positions: Tensor | None
    pad: Tensor | None
    steps: tuple[int, ...]

    def hidden(self, back: int, start: int, stop: int) -> Tensor | None:
        """bool [b c 1]: where the input ``back`` steps earlier belongs to another document; None: nowhere."""
        if self.positions is None or not any(start <= step < stop for step in self.steps):
            return None
        return _hides(self.positions[:, start:stop], start, back)[..., None]

    def any_in(self, start: int, stop: int) -> bool:
        """Whether something is hidden between two time steps."""
        return any(start <= step < stop for step in self.steps)


def sight(positions: Tensor | None, width: int) -> Sight:
    """What positions int [b t] hide from a convolution of ``width`` taps."""
    if positions is None:
        return Sight(None, None, ())
    pad = positions == PAD
    steps = _hides(positions, 0, width - 1).any(dim=0).nonzero().flatten().tolist()
    return Sight(positions, pad if bool(pad.any()) else None, tuple(steps))


def _hides(positions: Tensor, start: int, back: int) -> Tensor:
    # A document that began before the row has positions beyond the time step: all of the state is its own.
    steps = torch.arange(start, start + positions.shape[1], device=positions.device)
    return (positions < back) & (positions <= steps)


@dataclass(frozen=True)
class Tail:
    """Where each entry of the next state comes from.

    Attributes:
        index: int64 [b w-1], time step of the entry; negative counts back into the previous state.
        zero: bool [b w-1], entries before the start of the last document.
    """

    index: Tensor
    zero: Tensor

    def gather(self, x: Tensor, before: Tensor) -> Tensor:
        """The next state [b w-1 d] from x [b t d] and the previous state."""
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        entries = before[rows, (self.index + before.shape[1]).clamp_(0, before.shape[1] - 1)]
        if x.shape[1]:
            entries = torch.where((self.index >= 0)[..., None], x[rows, self.index.clamp_min(0)], entries)
        return entries.masked_fill(self.zero[..., None], 0.0)

    def scatter(self, dstate: Tensor, dx: Tensor, dbefore: Tensor) -> None:
        """Add the gradient of ``gather`` to dx [b t d] and dbefore [b w-1 d]."""
        rows = torch.arange(dx.shape[0], device=dx.device)[:, None].expand_as(self.index)
        kept = ~self.zero
        for chosen, target, shift in (
            (kept & (self.index >= 0), dx, 0),
            (kept & (self.index < 0), dbefore, dbefore.shape[1]),
        ):
            where = (rows[chosen], self.index[chosen] + shift)
            target.index_put_(where, dstate[chosen].to(target.dtype), accumulate=True)


def tail(positions: Tensor | None, batch: int, time: int, entries: int, device: torch.device) -> Tail:
    """The tail of rows whose real tokens (positions other than -1) stand first."""
    back = torch.arange(entries - 1, -1, -1, device=device)  # steps back from the last real token
    if positions is None:
        index = (time - 1 - back).expand(batch, entries)
        return Tail(index, torch.zeros_like(index, dtype=torch.bool))
    real = (positions != PAD).sum(dim=1, keepdim=True)
    index = real - 1 - back
    if not time:
        return Tail(index, torch.zeros_like(index, dtype=torch.bool))
    last = positions.gather(1, (real - 1).clamp_min(0))
    zero = (last < back) & (last <= real - 1) & (real > 0)
    return Tail(index, zero)
