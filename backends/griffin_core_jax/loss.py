"""Output projection, soft cap and cross-entropy in pieces: all logits never exist at once.

The gradient is computed in the forward pass, piece by piece while the logits are at hand: the logits of a few
positions of every row are made, turned into the loss's gradient, and multiplied into the gradients of the hidden
states and of the projection. Pieces are cut along time, so that rows stay where a sharded program has put them.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from griffin_core_jax.blocks import Constrain, unconstrained
from griffin_core_jax.devices import platform
from griffin_core_jax.products import einsum
from griffin_core_jax.scan.loop import wide_dtype

PIECE_BYTES = 1 << 26
"""Float32 logits held at a time; large enough for the products to run at full rate."""


class _Plan(NamedTuple):
    """What a program is made for: the soft cap, positions in a piece, the hook on the logits, the vocabulary's axis."""

    soft_cap: float | None
    length: int
    constrain: Constrain
    axis: str | None


def cross_entropy_sum(
    x: Array,
    weight: Array,
    targets: Array,
    soft_cap: float | None,
    scale: Array | float = 1.0,
    *,
    piece_bytes: int = PIECE_BYTES,
    constrain: Constrain = unconstrained,
    axis: str | None = None,
) -> Array:
    """``scale * sum -log softmax(cap(x @ weight.T))[target]`` over the positions with ``target >= 0``.

    Args:
        x: [b t m] hidden states after the final norm, in the compute dtype.
        weight: [v m] output projection, float32; it is rounded to ``x``'s dtype first.
        targets: integers [b t]; negative ones carry no loss, whatever ``x`` holds there.
        soft_cap: c of ``c * tanh(logits / c)``, or None.
        scale: factor on the sum, one over the number of targets for a mean.
        piece_bytes: float32 logits held at a time, over all devices of a sharded program.
        constrain: called with "logits" and float32 [b r v] (``blocks.Constrain``).
        axis: under ``shard_map``, the mesh axis over whose devices the rows of ``weight`` are spread, in order. The
            loss is then whole on each of them; x's cotangent is each one's part, to be summed by the caller.

    Returns:
        A float32 scalar, differentiable in ``x``, ``weight`` and ``scale``. Products accumulate in float32.
    """
    batch, time, _ = x.shape
    most = max(1, piece_bytes // (4 * max(1, batch) * weight.shape[0]))
    length = -(-time // -(-time // most)) if time else 1  # pieces of equal length waste the least padding
    extra = -time % length if time else 1
    if extra:
        x = jnp.pad(x, ((0, 0), (0, extra), (0, 0)))
        targets = jnp.pad(targets, ((0, 0), (0, extra)), constant_values=-1)
    wide = wide_dtype(x)
    return _total(_Plan(soft_cap, length, constrain, axis), x, weight, targets, jnp.asarray(scale, wide))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _total(plan: _Plan, x: Array, weight: Array, targets: Array, scale: Array) -> Array:
    matrix = weight.astype(x.dtype)

    def piece(index: Array, losses: Array) -> Array:
        loss, _ = _piece(plan, matrix, _cut(plan, x, index), _cut(plan, targets, index))
        return _put(plan, losses, loss, index)

    losses = lax.fori_loop(0, _pieces(plan, x), piece, jnp.zeros(targets.shape, scale.dtype))
    return jnp.sum(losses) * scale


def _forward(plan: _Plan, x: Array, weight: Array, targets: Array, scale: Array) -> tuple[Array, Any]:
    matrix, wide = weight.astype(x.dtype), scale.dtype

    def piece(index: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        losses, dx, dkernel = carry
        here, target = _cut(plan, x, index), _cut(plan, targets, index)
        loss, dlogits = _piece(plan, matrix, here, target)
        dlogits = _operand(plan.constrain("logits", dlogits * scale), x.dtype)
        back = einsum("brv,vm->brm", dlogits, matrix)
        kept = jnp.where((target >= 0)[..., None], here, 0).astype(dlogits.dtype)
        # [m v], as the narrower of two operands is cheaper to transpose
        dkernel = dkernel + einsum("brm,brv->mv", kept, dlogits)
        return _put(plan, losses, loss, index), _put(plan, dx, back.astype(x.dtype), index), dkernel

    start = (jnp.zeros(targets.shape, wide), jnp.zeros_like(x), jnp.zeros(weight.shape[::-1], wide))
    losses, dx, dkernel = lax.fori_loop(0, _pieces(plan, x), piece, start)
    total = jnp.sum(losses)
    return total * scale, (dx, dkernel.T.astype(weight.dtype), total)


def _backward(plan: _Plan, saved: Any, cotangent: Array) -> tuple[Array | None, ...]:
    dx, dweight, total = saved
    return dx * cotangent.astype(dx.dtype), dweight * cotangent.astype(dweight.dtype), None, total * cotangent


_total.defvjp(_forward, _backward)


def _piece(plan: _Plan, matrix: Array, x: Array, target: Array) -> tuple[Array, Array]:
    """(losses [b r], gradient in the uncapped logits [b r v]) of one piece; the second is dropped where unused."""
    real = (target >= 0)[..., None]
    cap = plan.soft_cap
    scores = plan.constrain("logits", einsum("brm,vm->brv", jnp.where(real, x, 0), matrix))
    bent = scores if cap is None else jnp.tanh(scores / cap)  # in units of the cap
    unit = 1.0 if cap is None else cap
    # A comparison instead of a gather: it needs no exchange where the vocabulary is sharded.
    first = 0 if plan.axis is None else lax.axis_index(plan.axis) * matrix.shape[0]
    hit = lax.broadcasted_iota(target.dtype, scores.shape, 2) == target[..., None] - first
    picked = _sum(plan, jnp.where(hit, bent, 0.0))
    peak = jnp.max(bent, axis=-1, keepdims=True)
    peak = peak if plan.axis is None else lax.pmax(peak, plan.axis)
    weights = jnp.exp((bent - peak) * unit)
    partition = _sum(plan, weights)
    loss = jnp.where(real, jnp.log(partition) + (peak - picked) * unit, 0.0)[..., 0]
    dlogits = weights / partition - hit
    dlogits = dlogits if cap is None else dlogits * (1.0 - bent * bent)
    return loss, jnp.where(real, dlogits, 0.0)


def _sum(plan: _Plan, x: Array) -> Array:
    """x [b r v] summed over the whole vocabulary: [b r 1]."""
    total = jnp.sum(x, axis=-1, keepdims=True)
    return total if plan.axis is None else lax.psum(total, plan.axis)


def _operand(dlogits: Array, dtype: Any) -> Array:
    """The gradient as products take it: float32 on a processor, the compute dtype where that has units of its own."""
    return dlogits if platform() == "cpu" else dlogits.astype(dtype)


def _pieces(plan: _Plan, x: Array) -> int:
    return int(x.shape[1] // plan.length)


def _cut(plan: _Plan, x: Array, index: Array) -> Array:
    return lax.dynamic_slice_in_dim(x, index * plan.length, plan.length, axis=1)


def _put(plan: _Plan, whole: Array, part: Array, index: Array) -> Array:
    return lax.dynamic_update_slice_in_dim(whole, part, index * plan.length, axis=1)
