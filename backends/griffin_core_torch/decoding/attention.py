"""One token of local attention, on a private ring cache that is written in place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

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


class AttentionStep:
    """A local attention block: its weights and its ring caches [b s e]."""

    def __init__(
        self,
        config: GriffinConfig,
        params: Mapping[str, Tensor],
        index: int,
        state: Mapping[str, Tensor],
        places: Places,
    ) -> None:
        prefix = layer_prefix(index) + "temporal_block."
        self.q_proj, self.k_proj, self.v_proj = (params[f"{prefix}{name}_proj.weight"] for name in "qkv")
        self.o_proj = (params[prefix + "o_proj.weight"], params[prefix + "o_proj.bias"])
        self.name, self.places = f"layers.{index}.", places
        self.k, self.v = (state[f"{self.name}{name}"].clone() for name in "kv")
        self.shape = (len(self.k), config.num_heads, config.head_dim)
        self.scale = config.head_dim**-0.5

    def __call__(self, x: Tensor) -> Tensor:
        """[b m] to [b m]."""
        places, size = self.places, self.k.shape[1]
        q = functional.linear(x, self.q_proj).view(self.shape)
        k = functional.linear(x, self.k_proj)[:, None]
        q, k = self._rotate(q), self._rotate(k)
        self._write(k[:, 0], functional.linear(x, self.v_proj), size)
        valid = places.valid(size)
        keys, values = (self.k, self.v) if isinstance(valid, Tensor) else (self.k[:, :valid], self.v[:, :valid])
        wide = accumulate_dtype(x.dtype)
        scores = torch.bmm(q.to(wide), keys.to(wide).transpose(1, 2)).mul_(self.scale)
        if isinstance(valid, Tensor):
            scores.masked_fill_(~valid, float("-inf"))
        y = torch.bmm(torch.softmax(scores, dim=-1), values.to(wide))
        return functional.linear(y.view(len(x), -1).to(x.dtype), *self.o_proj)

    def _rotate(self, x: Tensor) -> Tensor:
        """x [b n e] turned by this step's angles, in place where it is float32."""
        cos, sin = self.places.cos[self.places.step], self.places.sin[self.places.step]
        quarter = x.shape[-1] // 4
        first, second = x[..., :quarter].to(cos.dtype), x[..., quarter : 2 * quarter].to(cos.dtype)
        turned = torch.mul(first, cos).addcmul_(second, sin, value=-1.0)
        x[..., quarter : 2 * quarter] = torch.mul(second, cos).addcmul_(first, sin)
        x[..., :quarter] = turned
        return x

    def _write(self, k: Tensor, v: Tensor, size: int) -> None:
        places = self.places
        if places.equal:
            slot = (places.begin[0] + places.step) % size
            self.k[:, slot], self.v[:, slot] = k, v
            return
        slots = places.positions[:, places.step] % size
        self.k[places.rows, slots], self.v[places.rows, slots] = k, v

    def state(self) -> dict[str, Tensor]:
        """k and v, canonical."""
        return {self.name + "k": self.k, self.name + "v": self.v}
