"""One token through the recurrent block's middle, for a batch, on states that are written where they stand."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from griffin_core.errors import InputError
from griffin_core_torch.triton.launch import launch

COLUMNS, BATCH_ROWS, STEP_WARPS = 32, 16, 4
"""Of a program: columns of a gate block, rows of a batch where there is more than one, warps."""
KEYS = {1: 256, BATCH_ROWS: 64}
"""Channels of a block's products that are taken at a time, by rows."""


def recurrent_step(
    x: Tensor, params: Mapping[str, Tensor], h: Tensor, ring: Tensor, positions: Tensor, slots: Tensor | None = None
) -> Tensor:
    """``recurrent_middle`` of one token for each row, with its states updated in place.

    Args:
        x: [b d].
        params: those of ``recurrent_middle``.
        h: float32 [s d]; ``ring``: [s w d] in x's dtype, the input at position p in entry p mod w (``to_ring``).
        positions: int [b] of the tokens: 0 starts a document, -1 leaves the row's states as they are.
        slots: int32 [b], each row's own place in h and ring; None is 0, 1, 2, ...

    Returns:
        y [b d] in x's dtype; 0 where the position is -1.

    Raises:
        InputError: shapes or dtypes do not fit.
    """
    _check(x, params, h, ring, positions, slots)
    names = ("conv_weight", "conv_bias", "input_gate_weight", "input_gate_bias")
    names += ("recurrent_gate_weight", "recurrent_gate_bias", "recurrent_param")
    return update(x, *(params[name] for name in names), h, ring, positions, slots)


@torch.library.custom_op("griffin_core::recurrent_step", mutates_args=("h", "ring"))
def update(
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_gate_weight: Tensor,
    input_gate_bias: Tensor,
    recurrent_gate_weight: Tensor,
    recurrent_gate_bias: Tensor,
    recurrent_param: Tensor,
    h: Tensor,
    ring: Tensor,
    positions: Tensor,
    slots: Tensor | None,
) -> Tensor:
    """``recurrent_step`` as an operator of PyTorch."""
    (batch, width), (heads, block, _) = x.shape, input_gate_weight.shape
    out = torch.empty(batch, width, dtype=x.dtype, device=x.device)
    rows = 1 if batch == 1 else BATCH_ROWS
    columns, keys = min(COLUMNS, _power(block)), min(KEYS[rows], _power(block))
    x = x if x.stride(1) == 1 else x.contiguous()
    weights = {"conv_weight": conv_weight, "conv_bias": conv_bias, "param": recurrent_param}
    weights |= {"weight_x": input_gate_weight, "bias_x": input_gate_bias}
    weights |= {"weight_a": recurrent_gate_weight, "bias_a": recurrent_gate_bias}
    given = {"x": x, "h": h, "ring": ring, "out": out, "positions": positions.contiguous()}
    given |= {"slots": x if slots is None else slots.contiguous(), "SLOTS": slots is not None}
    given |= {"batch": batch, "width": width, "x_batch": x.stride(0), "out_batch": width, "TAPS": ring.shape[1]}
    given |= {"BLOCK": block, "KEYS": keys, "COLUMNS": columns, "ROWS": rows}
    given |= {name: value.contiguous() for name, value in weights.items()}
    launch("step_kernel", "step_kernel", (heads * -(-block // columns), -(-batch // rows)), STEP_WARPS, given)
    return out


@update.register_fake
def _(x, *rest):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape)


def to_ring(conv_state: Tensor, positions: Tensor) -> Tensor:
    """[b w d] from a canonical state [b w-1 d] and int [b], the positions of the tokens to come."""
    taps = conv_state.shape[1] + 1
    places = (positions.long()[:, None] + torch.arange(1, taps, device=positions.device)) % taps  # p-(w-1) .. p-1
    ring = conv_state.new_zeros(len(conv_state), taps, conv_state.shape[2])
    return ring.scatter_(1, places[..., None].expand_as(conv_state), conv_state)


def from_ring(ring: Tensor, positions: Tensor) -> Tensor:
    """The inverse of ``to_ring``."""
    taps = ring.shape[1]
    places = (positions.long()[:, None] + torch.arange(1, taps, device=positions.device)) % taps
    return ring.gather(1, places[..., None].expand(-1, -1, ring.shape[2]))


def _check(
    x: Tensor, params: Mapping[str, Tensor], h: Tensor, ring: Tensor, positions: Tensor, slots: Tensor | None
) -> None:
    batch, width = x.shape[0], params["recurrent_param"].shape[0]
    taps, count = params["conv_weight"].shape[2], h.shape[0]
    expected = {"x": (x, (batch, width)), "h": (h, (count, width)), "ring": (ring, (count, taps, width))}
    expected["positions"] = (positions, (batch,))
    if slots is not None:
        expected["slots"] = (slots, (batch,))
    elif count != batch:
        raise InputError(f"h has {count} rows and x has {batch}; expected as many, or slots that say which are meant")
    for name, (array, shape) in expected.items():
        if tuple(array.shape) != shape:
            raise InputError(f"{name} has shape {tuple(array.shape)}; expected {shape}")
    if h.dtype != torch.float32 or ring.dtype != x.dtype:
        raise InputError(f"h is {h.dtype} and ring is {ring.dtype}; expected torch.float32 and x's {x.dtype}")
    if not (h.is_contiguous() and ring.is_contiguous()):
        raise InputError("h and ring are written where they stand; expected contiguous tensors")


def _power(length: int) -> int:
    return 1 << (length - 1).bit_length()
