"""local_attention as users call it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from griffin_core.errors import InputError
from griffin_core_torch.attention.banded import banded_attention
from griffin_core_torch.attention.flex import SMALLEST_HEAD, cached_documents, documents, flex_band
from griffin_core_torch.attention.ring import check_room, ends, recall, store
from griffin_core_torch.attention.rotation import angles, rotate
from griffin_core_torch.attention.segments import segments

Cache = Mapping[str, Tensor]


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor | None = None,
    cache: Cache | None = None,
    window: int | None = None,
) -> tuple[Tensor, dict[str, Tensor] | None]:
    """softmax(q k^T / sqrt(e)) v over the last ``window`` tokens of the query's document, itself included.

    Args:
        q: [b t n e] queries before rotation.
        k, v: [b t e], one key and value head for all query heads, before rotation.
        positions: int32 [b t]: 0 starts a document, -1 is padding at the end of a row (output 0, attended
            by nobody). None continues at the cache's position, or starts a document without one.
        cache: "k", "v" [b s e] (position p in slot p mod s, keys rotated) and "position" int32 [b], the
            tokens of the current document already seen; None is empty.
        window: keys that a query sees; None is all of its document.

    Returns:
        (y, cache): [b t n e] in q's dtype, and the cache after the last token (None without one).

    Raises:
        InputError: shapes do not fit, or the cache is shorter than the window or than a document that is
            attended globally.
    """
    batch, time = q.shape[:2]
    for name, value in (("k", k), ("v", v)):
        if tuple(value.shape) != (batch, time, q.shape[3]):
            raise InputError(
                f"local_attention: {name} has shape {tuple(value.shape)}; expected {(batch, time, q.shape[3])}"
            )
    own = positions
    if positions is None:
        begin = q.new_zeros(batch, dtype=torch.int32) if cache is None else cache["position"]
        positions = begin[:, None] + torch.arange(time, dtype=torch.int32, device=q.device)
        own = None if cache is None else positions
    turn = angles(positions, q.shape[3])
    q, k = rotate(q, turn), rotate(k, turn)
    host = not (q.is_cuda or torch.compiler.is_compiling()) or q.shape[3] < SMALLEST_HEAD
    if cache is None:
        return _attend(q, k, v, positions, own, None, window, host), None
    real, after = ends(positions, cache["position"])
    size = cache["k"].shape[1]
    if not torch.compiler.is_compiling():
        check_room(size, window, after)
    past = _past(positions, size, window) if host else _most_past(size, window)
    keys, values = (
        torch.cat([recall(cache[n], cache["position"], past).to(x.dtype), x], 1) for n, x in (("k", k), ("v", v))
    )
    y = _attend(q, keys, values, positions, own, cache["position"], window, host)
    return y, {"k": store(cache["k"], k, real, after), "v": store(cache["v"], v, real, after), "position": after}


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    own: Tensor | None,
    before: Tensor | None,
    window: int | None,
    host: bool,
) -> Tensor:
    """The band, by documents that the ``host`` knows or the device does; keys of the cache stand in front."""
    past = k.shape[1] - q.shape[1]
    if host:
        return banded_attention(q, k, v, segments(own, q.shape[0], q.shape[1], past), window)
    mine = documents(positions if own is not None else positions.new_ones(positions.shape))
    seen = mine if before is None else torch.cat([cached_documents(before, past), mine], 1)
    return flex_band(q, k, v, mine, seen, window)


def _past(positions: Tensor, size: int, window: int | None) -> int:
    """How many cached keys some query of the call can see."""
    if not positions.numel():
        return 0
    return min(max(0, int(positions[:, 0].max())), _most_past(size, window))


def _most_past(size: int, window: int | None) -> int:
    """How many cached keys a query can see at most."""
    return size if window is None else min(size, window - 1)
