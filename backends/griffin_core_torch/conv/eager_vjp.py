"""conv1d with plain tensor operations: backward."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.conv.eager import tap_rows, window
from griffin_core_torch.conv.taps import Sight, sight, tail
from griffin_core_torch.scan.rows import block_rows


def conv1d_vjp(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: Tensor | None,
    positions: Tensor | None,
    y: Tensor,
    new_state: Tensor,
    dy: Tensor,
    dnew_state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None]:
    """Gradients of ``conv1d_forward``; shapes and dtypes are those of the inputs."""
    batch, time, width = x.shape
    wide = accumulate_dtype(x.dtype)
    taps = tap_rows(weight, wide)
    before = x.new_zeros(batch, len(taps) - 1, width) if state is None else state.to(x.dtype)
    seen = sight(positions, len(taps))
    if seen.pad is not None:  # select, so that NaN in padding stays there
        x, dy = (v.masked_fill(seen.pad[..., None], 0.0) for v in (x, dy))
    dx = torch.empty(batch, time, width, dtype=wide, device=x.device)
    dbefore = torch.zeros_like(before, dtype=wide)
    dtaps, dbias = torch.zeros_like(taps), x.new_zeros(width, dtype=wide)
    rows = max(len(taps), block_rows(batch, width))
    for start in range(0, time, rows):
        stop = min(start + rows, time)
        g = dy[:, start:stop].to(wide)
        dbias += g.sum((0, 1))
        _tap_grads(window(x, before, start, stop).to(wide), g, seen, start, stop, dtaps)
        _input_grads(dy, taps, seen, start, stop, dx)
    _state_grads(dy[:, : len(taps) - 1].to(wide), taps, seen, dbefore)
    tail(positions, batch, time, before.shape[1], x.device).scatter(dnew_state, dx, dbefore)
    dweight = dtaps.t()[:, None, :].to(weight.dtype)
    return dx.to(x.dtype), dweight, dbias.to(bias.dtype), None if state is None else dbefore.to(state.dtype), None


def _tap_grads(block: Tensor, g: Tensor, seen: Sight, start: int, stop: int, dtaps: Tensor) -> None:
    """dtaps[w-1-k] += sum_t dy_t x_{t-k}."""
    scratch = torch.empty_like(g)
    for back in range(len(dtaps)):
        shifted = block[:, len(dtaps) - 1 - back : block.shape[1] - back]
        hidden = seen.hidden(back, start, stop) if back else None
        shifted = shifted if hidden is None else shifted.masked_fill(hidden, 0.0)
        dtaps[-1 - back] += torch.mul(g, shifted, out=scratch).sum((0, 1))


def _input_grads(dy: Tensor, taps: Tensor, seen: Sight, start: int, stop: int, dx: Tensor) -> None:
    """dx_t = sum_k taps[w-1-k] dy_{t+k}, over the tokens that saw t."""
    out, time = dx[:, start:stop], dy.shape[1]
    torch.mul(dy[:, start:stop], taps[-1], out=out)
    for back in range(1, len(taps)):
        end = min(stop + back, time)
        if end <= start + back:
            break
        later = dy[:, start + back : end].to(dx.dtype)
        hidden = seen.hidden(back, start + back, end)
        later = later if hidden is None else later.masked_fill(hidden, 0.0)
        out[:, : end - start - back].addcmul_(later, taps[-1 - back])


def _state_grads(dy: Tensor, taps: Tensor, seen: Sight, dbefore: Tensor) -> None:
    """The first tokens' part in the gradient of the state."""
    entries = dbefore.shape[1]
    for back in range(1, len(taps)):
        count = min(back, dy.shape[1])
        early = dy[:, :count]
        hidden = seen.hidden(back, 0, count)
        early = early if hidden is None else early.masked_fill(hidden, 0.0)
        first = entries - back
        dbefore[:, first : first + count].addcmul_(early, taps[-1 - back])
