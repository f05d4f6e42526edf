"""Where a block finds its weights: a flat dict (functional form) or a module tree. One block serves both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from griffin_core_torch.room import Room

LRU_NAMES = {
    "recurrent_param": "rg_lru.recurrent_param",
    "input_gate_weight": "rg_lru.input_gate_weight",
    "input_gate_bias": "rg_lru.input_gate_bias",
    "recurrent_gate_weight": "rg_lru.recurrent_gate_weight",
    "recurrent_gate_bias": "rg_lru.recurrent_gate_bias",
}
MIDDLE_NAMES = {"conv_weight": "conv_1d.weight", "conv_bias": "conv_1d.bias", **LRU_NAMES}
"""Parameters of ``recurrent_middle`` and where they stand under a recurrent block."""


class Weights(Protocol):
    """The weights under one prefix of the canonical names."""

    def dense(self, name: str, x: Tensor, room: Room | None = None) -> Tensor:
        """The linear layer ``name`` applied to x [... in].

        Where ``room`` is given the result may stand in it, under the layer's name, until that name is used again.
        """

    def product(self, name: str, x: Tensor, room: Room | None) -> tuple[Tensor, Tensor | None]:
        """``dense`` without the bias, and the bias that is still to be added (None: there is none)."""

    def add_dense(self, name: str, x: Tensor, stream: Tensor) -> None:
        """Add the linear layer of x [... in] to ``stream`` [... out] in place."""

    def get(self, name: str) -> Tensor:
        """The parameter ``name``."""

    def under(self, prefix: str) -> Weights:
        """The weights under a further prefix (without the dot)."""


class FlatWeights:
    """Weights in a flat dict.

    Args:
        params: tensors by canonical name.
        prefix: prepended to every name.
        dtype: weights of linear layers and norms are computed in this dtype; None keeps theirs.
    """

    __slots__ = ("dtype", "params", "prefix")

    def __init__(self, params: Mapping[str, Tensor], prefix: str = "", dtype: torch.dtype | None = None) -> None:
        self.params, self.prefix, self.dtype = params, prefix, dtype

    def dense(self, name: str, x: Tensor, room: Room | None = None) -> Tensor:
        """x W^T + b."""
        weight, bias = self._linear(name)
        if room is None:
            return functional.linear(x, weight, bias)
        y = room.take(name, x, len(weight))
        rows, out = x.reshape(-1, x.shape[-1]), y.view(-1, len(weight))
        if bias is None:
            torch.mm(rows, weight.t(), out=out)
        else:
            torch.addmm(bias, rows, weight.t(), out=out)
        return y

    def product(self, name: str, x: Tensor, room: Room | None) -> tuple[Tensor, Tensor | None]:
        """x W^T and b: spreading b over the output before a product costs a pass over memory."""
        if room is None:
            return self.dense(name, x), None
        weight, bias = self._linear(name)
        y = room.take(name, x, len(weight))
        torch.mm(x.reshape(-1, x.shape[-1]), weight.t(), out=y.view(-1, len(weight)))
        return y, bias

    def add_dense(self, name: str, x: Tensor, stream: Tensor) -> None:
        """stream += x W^T + b."""
        weight, bias = self._linear(name)
        if not stream.is_contiguous():
            stream += functional.linear(x, weight, bias)
            return
        stream.view(-1, len(weight)).addmm_(x.reshape(-1, x.shape[-1]), weight.t())
        if bias is not None:
            stream += bias

    def _linear(self, name: str) -> tuple[Tensor, Tensor | None]:
        weight, bias = self.params[f"{self.prefix}{name}.weight"], self.params.get(f"{self.prefix}{name}.bias")
        return _cast(weight, self.dtype), None if bias is None else _cast(bias, self.dtype)

    def get(self, name: str) -> Tensor:
        """The parameter; the decay parameter keeps its own dtype."""
        value = self.params[self.prefix + name]
        return value if name.endswith("recurrent_param") else _cast(value, self.dtype)

    def under(self, prefix: str) -> FlatWeights:
        """The weights under a further prefix."""
        return FlatWeights(self.params, f"{self.prefix}{prefix}.", self.dtype)


class ModuleWeights:
    """Weights in a module tree; linear layers are called, so that wrapped or quantised ones act as such."""

    __slots__ = ("module",)

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def dense(self, name: str, x: Tensor, room: Room | None = None) -> Tensor:
        """The module's own linear layer at that path."""
        return self.module.get_submodule(name)(x)  # type: ignore[no-any-return]

    def product(self, name: str, x: Tensor, room: Room | None) -> tuple[Tensor, Tensor | None]:
        """The module's own linear layer, which adds its bias itself."""
        return self.dense(name, x), None

    def add_dense(self, name: str, x: Tensor, stream: Tensor) -> None:
        """stream += the module's own linear layer."""
        stream += self.dense(name, x)

    def get(self, name: str) -> Tensor:
        """The parameter at that path."""
        owner, _, leaf = name.rpartition(".")
        return getattr(self.module.get_submodule(owner), leaf)  # type: ignore[no-any-return]

    def under(self, prefix: str) -> ModuleWeights:
        """The submodule's weights."""
        return ModuleWeights(self.module.get_submodule(prefix))


def named(weights: Weights, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Parameters under the short names that an operation uses."""
    return {short: weights.get(name) for short, name in names.items()}


def _cast(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    return x if dtype is None or x.dtype == dtype else x.to(dtype)
