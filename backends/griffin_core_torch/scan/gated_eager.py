"""gated_scan with plain tensor operations: gates and recurrence of one time block while it is in cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from griffin_core.checks import PAD
from griffin_core.config import RG_LRU_C
from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.scan.rows import block_rows, marks, scan_forward, time_major


@dataclass(frozen=True)
class Marks:
    """Where documents start and where padding stands; None where there is none."""

    reset: Tensor | None
    pad: Tensor | None

    def block(self, start: int, stop: int) -> tuple[Tensor | None, Tensor | None]:
        """(reset, pad) of a time block, bool [c b 1]."""
        masks = (self.reset, self.pad)
        reset, pad = (None if m is None else time_major(m[:, start:stop])[..., None] for m in masks)
        return reset, pad


def find_marks(positions: Tensor | None, batch: int, time: int, fresh: bool, device: torch.device) -> Marks:
    """The marks of positions int [b t]; without positions token 0 starts a document when ``fresh``."""
    if positions is None:
        if not fresh or not time:
            return Marks(None, None)
        reset = torch.zeros(batch, time, dtype=torch.bool, device=device)
        reset[:, 0] = True
        return Marks(reset, None)
    reset, pad = positions == 0, positions == PAD
    return Marks(reset if bool(reset.any()) else None, pad if bool(pad.any()) else None)


def decay_rate(recurrent_param: Tensor, dtype: torch.dtype) -> Tensor:
    """-8 softplus(p) [d], computed in float64: log a is this times the recurrence gate."""
    return (-RG_LRU_C * functional.softplus(recurrent_param.double())).to(dtype)


def widen(x: Tensor, out: Tensor) -> Tensor:
    """A block [b c d] as ``out`` [c b d]."""
    return out.copy_(time_major(x))


def sigmoid_of(x: Tensor, out: Tensor) -> Tensor:
    """sigmoid of a block [b c d] into ``out`` [c b d], computed in ``out``'s dtype."""
    return torch.sigmoid(time_major(x), out=out) if x.dtype == out.dtype else widen(x, out).sigmoid_()


def gated_scan_forward(
    x: Tensor,
    gate_x: Tensor,
    gate_a: Tensor,
    recurrent_param: Tensor,
    h0: Tensor | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h_t = a_t h_{t-1} + m_t sigmoid(gate_x_t) x_t, float32 inside (``gated_scan``).

    Args:
        x, gate_x, gate_a: [b t d].
        recurrent_param: [d].
        h0: float32 [b d] or None.
        positions: int [b t] or None.

    Returns:
        (y, h): [b t d] in x's dtype; float32 [b d] (float64 when x is).
    """
    batch, time, width = x.shape
    wide = accumulate_dtype(x.dtype)
    y = torch.empty(batch, time, width, dtype=x.dtype, device=x.device)
    h = x.new_zeros(batch, width, dtype=wide) if h0 is None else h0.to(wide, copy=True)
    found = find_marks(positions, batch, time, h0 is None, x.device)
    rate, resets = decay_rate(recurrent_param, wide), marks(found.reset)
    rows = min(block_rows(batch, width), max(time, 1))
    scratch = torch.empty(2 if x.dtype == wide else 3, rows, batch, width, dtype=wide, device=x.device)
    for start in range(0, time, rows):
        stop = min(start + rows, time)
        y_block = time_major(y[:, start:stop])
        a, m = scratch[0, : stop - start], scratch[1, : stop - start]
        u = y_block if x.dtype == wide else scratch[2, : stop - start]
        parts = (x[:, start:stop], gate_x[:, start:stop], gate_a[:, start:stop])
        scan_terms(*parts, rate, found.block(start, stop), (a, m, u))
        h = scan_forward(u, a, u, h, resets, start).clone()
        if u is not y_block:
            y_block.copy_(u)
        if found.pad is not None:
            y_block.masked_fill_(found.block(start, stop)[1], 0.0)
    return y, h


def scan_terms(
    x: Tensor,
    gate_x: Tensor,
    gate_a: Tensor,
    rate: Tensor,
    masks: tuple[Tensor | None, Tensor | None],
    out: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Decay a and input u of one block [b c d], written to ``out`` = (a, scratch, u), each [c b d].

    u = m sigmoid(gate_x) x with m = sqrt(-expm1(2 log a)), which does not cancel as a approaches 1; m = 1 at
    a reset. Padding has a = 1, u = 0.
    """
    reset, pad = masks
    a, m, u = out
    sigmoid_of(gate_a, a).mul_(rate)
    torch.mul(a, 2.0, out=m)
    m.expm1_().neg_().sqrt_()
    a.exp_()
    sigmoid_of(gate_x, u)
    if x.dtype == u.dtype:
        u.mul_(time_major(x))
    else:
        u.mul_(time_major(x).to(u.dtype))
    if reset is not None:
        m.masked_fill_(reset, 1.0)
    u.mul_(m)
    if pad is not None:
        u.masked_fill_(pad, 0.0)
        a.masked_fill_(pad, 1.0)
