"""The operations that mix tokens, on a time axis that is split over devices: to be called under ``shard_map``.

Each device holds the next piece of every row. What has to travel is small: w-1 inputs of the convolution, window-1 keys
and values, and for the recurrence one state and one sum of log decays per row. Documents may start anywhere; padding
stands at the ends of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from griffin_core import registry
from griffin_core.checks import PAD
from griffin_core.errors import InputError
from griffin_core_jax.attention.banded import banded_attention
from griffin_core_jax.attention.rotation import rotate
from griffin_core_jax.conv import compose
from griffin_core_jax.dispatch import BACKEND
from griffin_core_jax.scan import compose as scans
from griffin_core_jax.scan.gates import block_gates, terms
from griffin_core_jax.scan.loop import wide_dtype
from griffin_core_jax.sharding.collectives import from_left
from griffin_core_jax.sharding.table import SEQUENCE


def entering_state(h: Array, log_decay: Array, axis: str = SEQUENCE) -> Array:
    """The state before this device's piece, from what every piece alone makes of zeros.

    Args:
        h: float32 [b d], the state after this piece when it starts from zeros.
        log_decay: float32 [b d], the sum of log a over this piece; -inf where it holds a reset, and then what stood
            before is not even multiplied.

    Returns:
        float32 [b d].
    """
    cut = jnp.isneginf(log_decay)
    both = lax.all_gather(jnp.stack([h, jnp.where(cut, 0.0, log_decay), cut.astype(h.dtype)]), axis)  # [n 3 b d]
    here = lax.axis_index(axis)
    state = jnp.zeros_like(h)
    for piece in range(both.shape[0] - 1):
        last, decay, stopped = both[piece]
        after = last + jnp.exp(decay) * jnp.where(stopped > 0, 0.0, state)
        state = jnp.where(piece < here, after, state)
    return state


def linear_scan(
    x: Array, log_a: Array, reset: Array | None = None, kernel: str | None = None, axis: str = SEQUENCE
) -> tuple[Array, Array]:
    """``linear_scan`` from zeros over all pieces of the time axis.

    Every piece is scanned from zeros at once, the states that enter are exchanged, and each piece is scanned again from
    its own: the result is the kernel's own for a row in one piece, up to the rounding of the state that enters.

    Args:
        x, log_a: [b t d] of this piece.
        reset: bool [b t].

    Returns:
        (y, h): [b t d], and the state after this piece [b d].
    """
    wide = wide_dtype(x)
    decay = log_a.astype(wide)
    if reset is not None:
        decay = jnp.where(reset[..., None], -jnp.inf, decay)
    zeros = jnp.zeros((x.shape[0], x.shape[2]), wide)
    _, h = scans.linear_scan(x, log_a, zeros, reset, None, kernel)
    return scans.linear_scan(x, log_a, entering_state(h, _total(decay), axis), reset, None, kernel)


def gated_scan(
    x: Array,
    gate_x: Array,
    gate_a: Array,
    recurrent_param: Array,
    positions: Array,
    kernel: str | None = None,
    axis: str = SEQUENCE,
) -> tuple[Array, Array]:
    """``gated_scan`` over all pieces of the time axis, as ``linear_scan`` here.

    Args:
        x, gate_x, gate_a: [b t d] of this piece.
        positions: int32 [b t] of this piece.

    Returns:
        (y, h): [b t d], and the state after this piece [b d].
    """
    wide = wide_dtype(x)
    decay = terms(x, gate_x, gate_a, recurrent_param).log_a
    decay = jnp.where((positions == PAD)[..., None], 0.0, jnp.where((positions == 0)[..., None], -jnp.inf, decay))
    gates = (x, gate_x, gate_a, recurrent_param)
    zeros = jnp.zeros((x.shape[0], x.shape[2]), wide)
    _, h = scans.gated_scan(*gates, zeros, positions, None, kernel)
    return scans.gated_scan(*gates, entering_state(h, _total(decay), axis), positions, None, kernel)


def conv1d(
    x: Array, weight: Array, bias: Array, positions: Array, kernel: str | None = None, axis: str = SEQUENCE
) -> tuple[Array, Array]:
    """``conv1d`` over all pieces: the w-1 inputs before this piece come from the left.

    Args:
        x: [b t d] of this piece, t at least w-1 unless it is the only one.
        positions: int32 [b t] of this piece.
    """
    back = weight.shape[-1] - 1
    before = from_left(x, axis, 1, back)
    before = jnp.where(_same_document(positions, back)[..., None], before, 0)
    return compose.conv1d(x, weight, bias, before, positions, None, kernel)


def recurrent_middle(
    x: Array,
    params: Mapping[str, Array],
    h0: Array | None = None,
    conv_state: Array | None = None,
    positions: Array | None = None,
    starts: Array | None = None,
    kernel: str | None = None,
) -> tuple[Array, Array, Array]:
    """``recurrent_middle`` over all pieces of the axis ``sequence``: ``conv1d``, gates, ``gated_scan``.

    Args:
        x: [b t d] of this piece.
        positions: int32 [b t] of this piece; None is one document from the first piece on.

    Returns:
        (y, h, conv_state) after this piece.

    Raises:
        InputError: a state or ``starts`` is given.
    """
    if h0 is not None or conv_state is not None or starts is not None:
        raise InputError("a time axis that is split takes no state and no starts; say where documents start")
    positions = _positions(x) if positions is None else positions
    part = registry.part_kernel(BACKEND, "conv1d", kernel)
    z, conv_state = conv1d(x, params["conv_weight"], params["conv_bias"], positions, part)
    gate_x, gate_a = block_gates(z, params)
    scan = registry.part_kernel(BACKEND, "gated_scan", kernel)
    y, h = gated_scan(z, gate_x, gate_a, params["recurrent_param"], positions, scan)
    return y, h, conv_state


def local_attention(
    q: Array,
    k: Array,
    v: Array,
    positions: Array | None = None,
    cache: Mapping[str, Any] | None = None,
    window: int | None = None,
) -> tuple[Array, None]:
    """``local_attention`` over all pieces of the axis ``sequence``: window-1 keys and values come from the left.

    Args:
        q [b t n e], k, v [b t e]: of this piece, before rotation.
        positions: int32 [b t] of this piece; None is one document from the first piece on.
        window: keys that a query sees; None is all of its document, and then every piece sends all it has.

    Returns:
        (y [b t n e], None).

    Raises:
        InputError: a cache is given.
    """
    if cache is not None:
        raise InputError("a time axis that is split takes no cache; split rows and widths for decoding instead")
    positions = _positions(q) if positions is None else positions
    pad = positions == PAD
    k, v = rotate(k, positions), jnp.where(pad[..., None], 0, v)
    most = (lax.axis_size(SEQUENCE) - 1) * k.shape[1]
    back = most if window is None else min(window - 1, most)
    keys, values = jnp.split(from_left(jnp.concatenate([k, v], axis=-1), SEQUENCE, 1, back), 2, axis=-1)
    document = jnp.cumsum(positions == 0, axis=1, dtype=jnp.int32)
    earlier = jnp.where(_same_document(positions, back), 0, -1)
    y = banded_attention(
        rotate(q, positions),
        jnp.concatenate([keys, k], axis=1),
        jnp.concatenate([values, v], axis=1),
        document,
        jnp.concatenate([earlier, document], axis=1),
        window,
    )
    return jnp.where(pad[..., None, None], 0, y), None


def last_piece(x: Array, axis: str = SEQUENCE) -> Array:
    """The value of x on the device with the last piece, on every device; its cotangent goes there alone."""
    last = lax.axis_index(axis) == lax.axis_size(axis) - 1
    return lax.psum(jnp.where(last, x, 0), axis)


def _same_document(positions: Array, back: int) -> Array:
    """bool [b back]: which of the tokens before this piece belong to the document that goes on in it.

    The first token's position says how many there are; nobody has to send them.
    """
    distance = back - jnp.arange(back, dtype=positions.dtype)
    return distance <= positions[:, :1]


def _positions(x: Array) -> Array:
    """int32 [b t] of one document that starts in the first piece."""
    time = x.shape[1]
    return jnp.broadcast_to(lax.axis_index(SEQUENCE) * time + jnp.arange(time, dtype=jnp.int32), x.shape[:2])


def _total(decay: Array) -> Array:
    """The sum over time; -inf where one is, without a gradient then."""
    cut = jnp.isneginf(decay)
    total = jnp.where(cut, 0.0, decay).sum(axis=1)
    return jnp.where(cut.any(axis=1), -jnp.inf, total)
