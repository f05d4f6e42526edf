"""softmax(q k^T) v over a causal band, block by block: no T x T matrix, and no product with another document."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.attention.segments import Block, Segment, blocks

Plan = list[Segment]


def banded_attention(q: Tensor, k: Tensor, v: Tensor, plan: Plan, window: int | None) -> Tensor:
    """Each query over the last ``window`` keys of its document, itself included.

    Args:
        q: [b t n e], rotated.
        k, v: [b s e], rotated; s is t and the cached keys in front.
        plan: from ``segments``.
        window: None is the whole document.

    Returns:
        [b t n e] in q's dtype, 0 where no segment has a query. Scores and sums are float32.
    """
    return _Banded.apply(q, k, v, plan, window)


class _Banded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan, window: int | None) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.plan, ctx.window = plan, window
        y = torch.empty_like(q, memory_format=torch.contiguous_format)
        if sum((s.rows.stop - s.rows.start) * (s.stop - s.start) for s in plan) < q.shape[0] * q.shape[1]:
            y.zero_()
        for segment in plan:
            for block in blocks(segment, q.shape[2], window):
                weights, _, values = _weights(q, k, v, segment, block, window)
                out = torch.bmm(weights, values)
                y[segment.rows, block.start : block.stop] = out.view(out.shape[0], -1, *q.shape[2:])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v = ctx.saved_tensors
        wide = accumulate_dtype(q.dtype)
        dq = torch.zeros_like(q, memory_format=torch.contiguous_format)
        dk, dv = (torch.zeros_like(x, dtype=wide, memory_format=torch.contiguous_format) for x in (k, v))
        scale = q.shape[-1] ** -0.5
        for segment in ctx.plan:
            for block in blocks(segment, q.shape[2], ctx.window):
                weights, keys, values = _weights(q, k, v, segment, block, ctx.window)
                g = _queries(dy, segment, block)
                seen = (segment.rows, slice(block.first, block.last))
                dv[seen].baddbmm_(weights.transpose(1, 2), g)
                dscores = torch.bmm(g, values.transpose(1, 2))
                dscores = torch.ops.aten._softmax_backward_data(dscores, weights, -1, wide).mul_(scale)
                dk[seen].baddbmm_(dscores.transpose(1, 2), _queries(q, segment, block))
                out = torch.bmm(dscores, keys)
                dq[segment.rows, block.start : block.stop] = out.view(out.shape[0], -1, *q.shape[2:])
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, None


def _queries(q: Tensor, segment: Segment, block: Block) -> Tensor:
    """[r c*n e]: heads folded into rows, since all share one key head."""
    part = q[segment.rows, block.start : block.stop]
    return part.reshape(part.shape[0], -1, part.shape[-1]).to(accumulate_dtype(q.dtype))


def _weights(
    q: Tensor, k: Tensor, v: Tensor, segment: Segment, block: Block, window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(weights [r c*n s'], keys, values [r s' e]) of one block, s' the keys that some query of it sees."""
    heads, scale = q.shape[2], q.shape[3] ** -0.5
    queries = _queries(q, segment, block)
    keys, values = (x[segment.rows, block.first : block.last].to(queries.dtype) for x in (k, v))
    scores = queries.new_empty(queries.shape[0], queries.shape[1], keys.shape[1])
    torch.baddbmm(scores, queries, keys.transpose(1, 2), beta=0.0, alpha=scale, out=scores)
    _mask_band(scores.view(scores.shape[0], -1, heads, scores.shape[2]), segment, block, window)
    return torch.softmax(scores, dim=-1, out=scores), keys, values


def _mask_band(scores: Tensor, segment: Segment, block: Block, window: int | None) -> None:
    """-inf on the two corners of [r c n s'] that lie outside the band: keys to come, and keys too old."""
    count, seen = scores.shape[1], scores.shape[3]
    steps = torch.arange(count, device=scores.device)
    if count > 1:
        later = steps[None, :] > steps[:, None]
        scores[..., seen - count :].masked_fill_(later[:, None, :], float("-inf"))
    if window is None:
        return
    # Query i of the block sees keys from (block.start + i + offset - window + 1) on.
    base = block.start + segment.offset - window + 1 - block.first
    old = min(seen, base + count - 1)
    if old > 0:
        early = torch.arange(old, device=scores.device)[None, :] < steps[:, None] + base
        scores[..., :old].masked_fill_(early[:, None, :], float("-inf"))
