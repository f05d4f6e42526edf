"""One token of local attention, on a private ring cache that is written in place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import layer_prefix
from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.attention.rotation import angles


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
        if head_dim is not None:
            self.cos, self.sin = (x.transpose(0, 1)[:, :, None].contiguous() for x in angles(self.positions, head_dim))

    def valid(self, size: int) -> int | Tensor:
        """Slots of a ring of ``size`` that hold keys: their number, or a mask [b 1 s] where rows differ."""
        if self.equal:
            return min(self.begin[0] + self.step + 1, size)
        slots = torch.arange(size, device=self.rows.device)
        return (slots <= self.positions[:, self.step, None])[:, None]


class AttentionScratch:
    """Buffers that all attention blocks of a model share, with the views of them that a step uses.

    Attributes:
        heads: float32 [b n+1 e], the queries and after them the key; ``first`` and ``second`` are the rotated quarters.
        outs: where the products of queries, key and value are written, compute dtype.
    """

    def __init__(self, config: GriffinConfig, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        n, e, wide = config.num_heads, config.head_dim, accumulate_dtype(dtype)
        flat = torch.empty(batch, (n + 2) * e, dtype=dtype, device=device)
        self.same, self.flat = dtype == wide, flat
        self.outs = (flat[:, : n * e], flat[:, n * e : (n + 1) * e], flat[:, (n + 1) * e :])
        self.wide = flat if self.same else torch.empty_like(flat, dtype=wide)
        every = self.wide.view(batch, n + 2, e)
        self.q, self.k, self.v, heads = every[:, :n], every[:, n], every[:, n + 1], every[:, : n + 1]
        self.first, self.second = heads[..., : e // 4], heads[..., e // 4 : e // 2]
        self.turned = torch.empty_like(self.first)
        self.zero = self.wide.new_zeros(1, 1, 1)
        self.y = torch.empty(batch, n, e, dtype=wide, device=device)
        self.mixed = self.y.view(batch, -1)


class AttentionStep:
    """A local attention block: its weights and its ring caches [b s e], float32 while it decodes.

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
        prefix = layer_prefix(index) + "temporal_block."
        self.projections = [params[f"{prefix}{name}_proj.weight"].t() for name in "qkv"]
        self.o_proj = (params[prefix + "o_proj.bias"], params[prefix + "o_proj.weight"].t())
        self.name, self.places, self.scratch = f"layers.{index}.", places, scratch
        self.dtype, wide = state[self.name + "k"].dtype, scratch.wide.dtype
        self.k, self.v = (state[f"{self.name}{name}"].to(wide, copy=True) for name in "kv")
        self.scale = config.head_dim**-0.5

    def __call__(self, x: Tensor) -> Tensor:
        """[b m] to [b m]."""
        scratch = self.scratch
        for weight, out in zip(self.projections, scratch.outs, strict=True):
            torch.mm(x, weight, out=out)
        if not scratch.same:
            scratch.wide.copy_(scratch.flat)
        self._rotate(scratch)
        self._write(scratch)
        valid = self.places.valid(self.k.shape[1])
        keys, values = (self.k, self.v) if isinstance(valid, Tensor) else (self.k[:, :valid], self.v[:, :valid])
        scores = torch.baddbmm(scratch.zero, scratch.q, keys.transpose(1, 2), beta=0.0, alpha=self.scale)
        if isinstance(valid, Tensor):
            scores.masked_fill_(~valid, float("-inf"))
        torch.bmm(torch.softmax(scores, dim=-1), values, out=scratch.y)
        bias, weight = self.o_proj
        return torch.addmm(bias, scratch.mixed if scratch.same else scratch.mixed.to(x.dtype), weight)

    def _rotate(self, scratch: AttentionScratch) -> None:
        """Queries and key turned by this step's angles, in place."""
        cos, sin = self.places.cos[self.places.step], self.places.sin[self.places.step]
        first, second = scratch.first, scratch.second
        turned = torch.mul(first, cos, out=scratch.turned).addcmul_(second, sin, value=-1.0)
        second.mul_(cos).addcmul_(first, sin)
        first.copy_(turned)

    def _write(self, scratch: AttentionScratch) -> None:
        places, size = self.places, self.k.shape[1]
        # The cache holds values of the compute dtype, as it does between calls.
        k = scratch.k if scratch.same else scratch.k.to(self.dtype).to(scratch.k.dtype)
        if places.equal:
            slot = (places.begin[0] + places.step) % size
            self.k[:, slot], self.v[:, slot] = k, scratch.v
            return
        slots = places.positions[:, places.step] % size
        self.k[places.rows, slots], self.v[places.rows, slots] = k, scratch.v

    def state(self) -> dict[str, Tensor]:
        """k and v, canonical."""
        return {self.name + "k": self.k.to(self.dtype), self.name + "v": self.v.to(self.dtype)}
