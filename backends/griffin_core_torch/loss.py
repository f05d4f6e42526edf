"""Output projection, soft cap and cross-entropy in pieces: all logits never exist at once.

The gradient is computed in the forward pass, piece by piece while the logits are at hand: a few rows' logits
are made, turned in place into the loss's gradient, and multiplied into the gradients of the hidden states and
of the projection. Losses are summed in float32 within a piece and in float64 across pieces.
"""

from __future__ import annotations

from typing import Any

import torch

PIECE_BYTES = 1 << 26
"""Float32 logits held at a time; large enough for the products to run at full rate."""
BLOCK_BYTES = 1 << 20
"""Float32 logits that the element-wise passes work on: they fit a core's level-2 cache."""


def cross_entropy_sum(
    x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, soft_cap: float | None, scale: float = 1.0
) -> torch.Tensor:
    """``scale * sum_i -log softmax(cap(x_i @ weight.T))[targets_i]`` over the rows with ``targets_i >= 0``.

    Args:
        x: [n m] hidden states after the final norm, in the compute dtype.
        weight: [v m] output projection, float32; it is rounded to ``x``'s dtype first.
        targets: int64 [n]; negative ones carry no loss.
        soft_cap: c of ``c * tanh(logits / c)``, or None.
        scale: factor on the sum, one over the number of targets for a mean.

    Returns:
        A float32 scalar, differentiable in ``x`` and ``weight``. Products accumulate in float32.
    """
    # Inside a Function gradients always look disabled and inputs always look wanted: decide here.
    needs_grad = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    total: torch.Tensor = _CrossEntropy.apply(x, weight, targets, soft_cap, scale, needs_grad)
    return total


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        soft_cap: float | None,
        scale: float,
        needs_grad: bool,
    ) -> torch.Tensor:
        rows = torch.nonzero(targets >= 0).squeeze(1)
        everything = len(rows) == len(targets)
        matrix = weight.to(x.dtype).float()  # float32 holds the products of a narrower dtype exactly
        grads = (torch.zeros_like(x), torch.zeros_like(matrix)) if needs_grad else None
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for index in rows.split(max(1, PIECE_BYTES // (4 * len(matrix)))):
            part = slice(int(index[0]), int(index[-1]) + 1) if everything else index
            piece = x[part].float()
            logits = _logits(piece, matrix, soft_cap)
            total += _loss_in_place(logits, targets[part], soft_cap, scale, needs_grad)
            if grads is not None:
                grads[0][part] = (logits @ matrix).to(x.dtype)
                grads[1].addmm_(logits.T, piece)
        if grads is not None:
            ctx.save_for_backward(*grads)
        return (total * scale).float()

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        dx, dweight = ctx.saved_tensors
        (cotangent,) = cotangents
        return dx * cotangent.to(dx.dtype), dweight * cotangent, None, None, None, None


def _logits(piece: torch.Tensor, matrix: torch.Tensor, soft_cap: float | None) -> torch.Tensor:
    """Float32 [r v]; divided by the cap, by way of the smaller operand, where there is one."""
    return (piece if soft_cap is None else piece / soft_cap) @ matrix.T


def _loss_in_place(
    logits: torch.Tensor, targets: torch.Tensor, soft_cap: float | None, scale: float, needs_grad: bool
) -> torch.Tensor:
    """The rows' summed loss in float64; ``logits`` become ``scale`` times its gradient in the uncapped logits."""
    step = max(1, BLOCK_BYTES // (4 * logits.shape[1]))
    work = torch.empty_like(logits[:step])
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for start in range(0, len(logits), step):
        block = logits[start : start + step]
        total += _block_loss(
            block, targets[start : start + step, None], work[: len(block)], soft_cap, scale, needs_grad
        )
    return total


def _block_loss(
    block: torch.Tensor,
    target: torch.Tensor,
    work: torch.Tensor,
    soft_cap: float | None,
    scale: float,
    needs_grad: bool,
) -> torch.Tensor:
    if soft_cap is not None:
        block.tanh_()
    cap = soft_cap or 1.0
    picked = block.gather(1, target)
    peak = block.amax(1, keepdim=True)
    torch.sub(block, peak, out=work).mul_(cap).exp_()
    partition = work.sum(1, keepdim=True)
    loss = partition.log().add_((peak - picked).mul_(cap)).sum()
    if needs_grad:
        work.mul_(scale / partition)
        work.scatter_add_(1, target, torch.full_like(picked, -scale))
        if soft_cap is None:
            block.copy_(work)
        else:
            torch.addcmul(work, work, block.square_(), value=-1.0, out=block)  # d tanh = 1 - tanh^2
    return loss.double()
