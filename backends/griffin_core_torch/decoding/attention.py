"""One token of local attention, on a private ring cache that is written in place."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import layer_prefix
from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.attention.rotation import angles
from griffin_core_torch.decoding.stream import Call, Stream


class Places:
    """Positions of the tokens that one decode call consumes, and their rotations, made before the first.

    Args:
        begin: the rows' positions, host integers.
        count: tokens to come.
        head_dim: e, or None when no layer attends.
        device: where rotations live.

    Attributes:
        step: index of the token being consumed.
    """

    def __init__(self, begin: list[int], count: int, head_dim: int | None, device: torch.device) -> None:
        self.begin, self.step = begin, 0
        self.equal = len(set(begin)) == 1
        self.rows = torch.arange(len(begin), device=device)
        first = torch.tensor(begin, device=device)
        self.positions = first[:, None] + torch.arange(count, device=device)  # int64 [b n]
        self._turns = None
        if head_dim is not None:
            turns = torch.stack(angles(self.positions, head_dim)).permute(2, 0, 1, 3)
            self._turns = turns[:, :, :, None].contiguous()
            self.turn = self._turns[0].clone()  # [2 b 1 e/4]: cosines and sines of the token being consumed

    def rotate(self) -> None:
        """Bring ``turn`` to the token being consumed."""
        if self._turns is not None:
            self.turn.copy_(self._turns[self.step])

    def phase(self, width: int) -> int:
        """Position of the first row's token, modulo ``width``."""
        return (self.begin[0] + self.step) % width

    def valid(self, size: int) -> int | Tensor:
        """Slots of a ring of ``size`` that hold keys: their number, or a mask [b 1 s] where rows differ."""
        if self.equal:
            return min(self.begin[0] + self.step + 1, size)
        slots = torch.arange(size, device=self.rows.device)
        return (slots <= self.positions[:, self.step, None])[:, None]


class AttentionScratch:
    """Buffers that all attention blocks of a model share, with the views of them that a step uses.

    Attributes:
        q, k: float32 [b n e] and [b e]; ``kv`` [2 b e] is the key, once rotated, and the value.
        halves: float32 [b n+1 2 e/4], what is rotated of queries and key.
        outs: where the products of queries, key and value are written, compute dtype.
        mixed: [b n*e] in the compute dtype, heads side by side.
    """

    def __init__(self, config: GriffinConfig, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        n, e, wide = config.num_heads, config.head_dim, accumulate_dtype(dtype)
        flat = torch.empty(batch, (n + 2) * e, dtype=dtype, device=device)
        self.same, self.flat = dtype == wide, flat
        self.outs = (flat[:, : n * e], flat[:, n * e : (n + 1) * e], flat[:, (n + 1) * e :])
        self.wide = flat if self.same else torch.empty_like(flat, dtype=wide)
        every = self.wide.view(batch, n + 2, e)
        self.q, self.k, self.kv = every[:, :n], every[:, n], every[:, n:].transpose(0, 1)
        self.halves = every[:, : n + 1, : e // 2].unflatten(2, (2, e // 4))
        self.turned = torch.empty_like(self.halves, memory_format=torch.contiguous_format)
        self.zero = self.wide.new_zeros(1, 1, 1)
        self.y = torch.empty(batch, n, e, dtype=wide, device=device)
        self.mixed = self.y.view(batch, -1) if self.same else torch.empty(batch, n * e, dtype=dtype, device=device)


class AttentionStep:
    """A local attention block: its weights and its ring caches, keys and values [2 b s e], float32 while it decodes.

    Args:
        scratch: shared with the other attention blocks.
    """

    def __init__(
        self,
        config: GriffinConfig,
        params: Mapping[str, Tensor],
        index: int,
        state: Mapping[str, Tensor],
        places: Places,
        scratch: AttentionScratch,
    ) -> None:
        self.params, self.prefix = params, layer_prefix(index) + "temporal_block."
        self.name, self.places, self.scratch = f"layers.{index}.", places, scratch
        self.dtype, wide = state[self.name + "k"].dtype, scratch.wide.dtype
        caches = [state[self.name + name] for name in "kv"]
        self.kv = torch.empty(2, *caches[0].shape, dtype=wide, device=caches[0].device)
        self.k, self.v = (mine.copy_(given) for mine, given in zip(self.kv.unbind(0), caches, strict=True))
        self.scale = config.head_dim**-0.5

    def calls(self, stream: Stream, phase: int) -> list[Call]:
        """Add the block of ``stream.y`` to the stream."""
        scratch = self.scratch
        weights = [self.params[f"{self.prefix}{name}_proj.weight"].t() for name in "qkv"]
        return [
            *(partial(torch.mm, stream.y, weight, out=out) for weight, out in zip(weights, scratch.outs, strict=True)),
            *([] if scratch.same else [partial(scratch.wide.copy_, scratch.flat)]),
            *self._rotate(scratch),
            self._attend,
            *([] if scratch.same else [partial(scratch.mixed.copy_, scratch.y.view_as(scratch.mixed))]),
            *stream.add(self.params, self.prefix + "o_proj", scratch.mixed),
        ]

    def _rotate(self, scratch: AttentionScratch) -> list[Call]:
        """Queries and key turned by this step's angles, in place."""
        cos, sin = self.places.turn.unbind(0)
        first, second = scratch.halves.unbind(2)
        turned_first, turned_second = scratch.turned.unbind(2)
        return [
            partial(torch.mul, scratch.halves, cos[:, :, None], out=scratch.turned),
            partial(turned_first.addcmul_, second, sin, value=-1.0),
            partial(turned_second.addcmul_, first, sin),
            partial(scratch.halves.copy_, scratch.turned),
        ]

    def _attend(self) -> None:
        """Write this token's key and value into the ring, and mix the values that the queries see."""
        scratch = self.scratch
        self._write(scratch)
        valid = self.places.valid(self.k.shape[1])
        keys, values = (self.k, self.v) if isinstance(valid, Tensor) else (self.k[:, :valid], self.v[:, :valid])
        scores = torch.baddbmm(scratch.zero, scratch.q, keys.transpose(1, 2), beta=0.0, alpha=self.scale)
        if isinstance(valid, Tensor):
            scores.masked_fill_(~valid, float("-inf"))
        torch.bmm(torch.softmax(scores, dim=-1), values, out=scratch.y)

    def _write(self, scratch: AttentionScratch) -> None:
        places, size = self.places, self.k.shape[1]
        if not scratch.same:  # the cache holds values of the compute dtype, as it does between calls
            scratch.k.copy_(scratch.k.to(self.dtype))
        if places.equal:
            self.kv.select(2, places.phase(size)).copy_(scratch.kv)
        else:
            self.kv[:, places.rows, places.positions[:, places.step] % size] = scratch.kv

    def state(self) -> dict[str, Tensor]:
        """k and v, canonical."""
        return {self.name + "k": self.k.to(self.dtype), self.name + "v": self.v.to(self.dtype)}
