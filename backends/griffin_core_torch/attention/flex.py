"""Local attention on GPUs through PyTorch's flex attention: which blocks of keys a block of queries sees is known from
the window alone, what it sees inside them from documents on the device. Nothing waits for the host, nothing is t x t.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from griffin_core.checks import PAD

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Queries, and keys, of a block."""
SMALLEST_HEAD = 16
"""Head sizes below it are left to ``banded``: flex attention's kernels take none."""
NOBODY = -2
"""The document of cached entries that hold nothing yet; padding has -1."""


def documents(positions: Tensor) -> Tensor:
    """int32 [b t]: how many documents have started up to each token, -1 at padding."""
    count = (positions == 0).cumsum(1, dtype=torch.int32)
    return torch.where(positions == PAD, -1, count)


def cached_documents(seen: Tensor, count: int) -> Tensor:
    """int32 [b count] of the last ``count`` tokens before position ``seen`` [b]: 0, or ``NOBODY`` before the first."""
    back = torch.arange(count, 0, -1, device=seen.device)
    return torch.where(back <= seen[:, None], 0, NOBODY).to(torch.int32)


def flex_band(q: Tensor, k: Tensor, v: Tensor, own: Tensor, seen: Tensor, window: int | None) -> Tensor:
    """Each query over the last ``window`` keys of its document, itself included.

    Args:
        q: [b t n e], rotated.
        k, v: [b s e], rotated; s is t and the cached keys in front.
        own: int32 [b t], ``documents`` of the queries; ``seen``: int32 [b s], those of the keys.
        window: None is the whole document.

    Returns:
        [b t n e] in q's dtype, 0 at padding.
    """
    from torch.nn.attention.flex_attention import flex_attention  # brings the compiler along

    past = k.shape[1] - q.shape[1]
    reach = k.shape[1] if window is None else window

    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        near = (j <= i + past) & (i + past - j < reach)
        return near & (own[b, i] == seen[b, j]) & (own[b, i] >= 0)

    mask = _block_mask(q.shape[1], past, reach, visible, q.device)
    run = _compiled() if q.is_cuda and not torch.compiler.is_compiling() else flex_attention
    y = run(q.transpose(1, 2), k[:, None], v[:, None], block_mask=mask, enable_gqa=True).transpose(1, 2)
    return y.masked_fill((own < 0)[..., None, None], 0.0)


def _block_mask(time: int, past: int, reach: int, visible: Callable[..., Tensor], device: torch.device) -> BlockMask:
    """Block i of the queries sees the blocks of keys from the oldest that its first query reaches to its last one's."""
    from torch.nn.attention.flex_attention import BlockMask

    first = torch.arange(0, time, BLOCK, device=device, dtype=torch.int32)
    count = -(-(past + time) // BLOCK)
    lowest = (first + (past - reach + 1)).clamp_min(0) // BLOCK
    highest = (first + (past + BLOCK - 1)).clamp_max(past + time - 1) // BLOCK
    indices = (lowest[:, None] + torch.arange(count, device=device, dtype=torch.int32)) % count
    return BlockMask.from_kv_blocks(
        (highest - lowest + 1)[None, None],
        indices[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=visible,
        seq_lengths=(time, past + time),
    )


@functools.cache
def _compiled() -> Any:
    """Flex attention compiled: interpreted it makes all t x t scores."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)
