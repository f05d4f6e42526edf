"""local_attention as users call it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from griffin_core.errors import InputError
from griffin_core_torch.attention.banded import banded_attention
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
    if cache is None:
        return banded_attention(q, k, v, segments(own, batch, time, 0), window), None
    real, after = ends(positions, cache["position"])
    check_room(cache["k"].shape[1], window, after)
    past = _past(positions, cache["k"].shape[1], window)
    keys, values = (
        torch.cat([recall(cache[n], cache["position"], past).to(x.dtype), x], 1) for n, x in (("k", k), ("v", v))
    )
    y = banded_attention(q, keys, values, segments(positions, batch, time, past), window)
    return y, {"k": store(cache["k"], k, real, after), "v": store(cache["v"], v, real, after), "position": after}


def _past(positions: Tensor, size: int, window: int | None) -> int:
    """How many cached keys some query of the call can see."""
    if not positions.numel():
        return 0
    furthest = max(0, int(positions[:, 0].max()))
    return min(furthest, size if window is None else min(size, window - 1))
