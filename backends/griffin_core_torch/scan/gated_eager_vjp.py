"""gated_scan with plain tensor operations: backward. Gates are computed again, never saved.

With L = log a, m = sqrt(1 - a^2), u = i x and g from the mirrored scan, q = L dLoss/dL is

    q = g a (L h_{t-1} - u a L / m),

and dgate_a = (1 - r) q, dp = sigmoid(p) / softplus(p) sum q, dx = g m i, dgate_x = dx x (1 - i). L / m
tends to -sqrt(|L| / 2), so every gradient is finite up to a = 1, where that of m alone is not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.scan.gated_eager import Marks, decay_rate, find_marks, gated_scan_forward, sigmoid_of, widen
from griffin_core_torch.scan.rows import block_rows, marks, scan_backward, time_major

_SCRATCH = 7


def gated_scan_vjp(
    x: Tensor,
    gate_x: Tensor,
    gate_a: Tensor,
    recurrent_param: Tensor,
    h0: Tensor | None,
    positions: Tensor | None,
    y: Tensor,
    h: Tensor,
    dy: Tensor,
    dh: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, None]:
    """Gradients of ``gated_scan_forward``; shapes and dtypes are those of the inputs."""
    batch, time, width = x.shape
    wide = accumulate_dtype(x.dtype)
    states = y if y.dtype == wide else gated_scan_forward(x.to(wide), gate_x, gate_a, recurrent_param, h0, positions)[0]
    found = find_marks(positions, batch, time, h0 is None, x.device)
    rate, resets, carry = decay_rate(recurrent_param, wide), marks(found.reset), dh.to(wide)
    first = x.new_zeros(batch, width, dtype=wide) if h0 is None else h0.to(wide)
    grads = [torch.empty_like(v, memory_format=torch.contiguous_format) for v in (x, gate_x, gate_a)]
    rows = min(block_rows(batch, width), max(time, 1))
    scratch = torch.empty(_SCRATCH, rows, batch, width, dtype=wide, device=x.device)
    a_rows, total = scratch[2].unbind(0), x.new_zeros(width, dtype=wide)
    for start in reversed(range(0, time, rows)):
        stop = min(start + rows, time)
        cut = slice(start, stop)
        g, log_a, a, *rest = scratch[:, : stop - start].unbind(0)
        _decay_block(gate_a[:, cut], rate, found, cut, log_a, a)
        _cotangent_block(dy[:, cut], found, cut, g)
        carry = scan_backward(g.unbind(0), a_rows, carry, resets, start)
        before = (states[:, start - 1] if start else first, time_major(states[:, start : stop - 1]))
        parts = (x[:, cut], gate_x[:, cut], gate_a[:, cut])
        q = _gate_grads(parts, before, (g, log_a, a, *rest), found.block(start, stop), [v[:, cut] for v in grads])
        total += q.sum((0, 1))
    return (*grads, param_grad(recurrent_param, total), None if h0 is None else carry.to(h0.dtype), None)


def _decay_block(gate_a: Tensor, rate: Tensor, found: Marks, cut: slice, log_a: Tensor, a: Tensor) -> None:
    sigmoid_of(gate_a, log_a).mul_(rate)
    torch.exp(log_a, out=a)
    if found.pad is not None:
        a.masked_fill_(found.block(cut.start, cut.stop)[1], 1.0)


def _cotangent_block(dy: Tensor, found: Marks, cut: slice, g: Tensor) -> None:
    widen(dy, g)
    if found.pad is not None:
        g.masked_fill_(found.block(cut.start, cut.stop)[1], 0.0)


def _gate_grads(
    parts: tuple[Tensor, Tensor, Tensor],
    before: tuple[Tensor, Tensor],
    scratch: tuple[Tensor, ...],
    masks: tuple[Tensor | None, Tensor | None],
    grads: list[Tensor],
) -> Tensor:
    """Writes the gradients of one block to ``grads``; returns q [c b d]."""
    x, gate_x, gate_a = parts
    g, log_a, a, m, i, u, q = scratch
    reset, pad = masks
    torch.mul(log_a, 2.0, out=m)
    m.expm1_().neg_()
    torch.clamp_min(m, torch.finfo(m.dtype).tiny, out=q).rsqrt_().mul_(log_a).mul_(a)  # a L / m
    m.sqrt_()
    if reset is not None:
        m.masked_fill_(reset, 1.0)
    m.mul_(g)
    sigmoid_of(gate_x, i)
    widen(x, u).mul_(i)
    q.mul_(u)
    u.mul_(m)
    _store(grads[1], torch.addcmul(u, u, i, value=-1.0, out=u), pad)
    _store(grads[0], m.mul_(i), pad)
    log_a[1:].mul_(before[1])
    log_a[0].mul_(before[0])
    torch.sub(log_a, q, out=q).mul_(a).mul_(g)
    for mask in (reset, pad):
        if mask is not None:
            q.masked_fill_(mask, 0.0)
    sigmoid_of(gate_a, u)
    _store(grads[2], torch.addcmul(q, q, u, value=-1.0, out=u), pad)
    return q


def _store(grad: Tensor, value: Tensor, pad: Tensor | None) -> None:
    """Write ``value`` [c b d] to ``grad`` [b c d], 0 at padding."""
    if pad is not None:
        value.masked_fill_(pad, 0.0)
    time_major(grad).copy_(value)


def param_grad(recurrent_param: Tensor, total: Tensor) -> Tensor:
    """sigmoid(p) / softplus(p) * sum q; the ratio tends to 1 where softplus underflows."""
    p = recurrent_param.double()
    soft = functional.softplus(p)
    ratio = torch.where(soft > 0, torch.sigmoid(p) / soft, torch.ones_like(p))
    return (ratio * total).to(recurrent_param.dtype)
