"""Where a block finds its weights: a flat dict (functional form) or Keras layers. One block serves both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from keras import ops

from griffin_core_keras.engine import engine

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

    def dense(self, name: str, x: Any) -> Any:
        """The linear layer ``name`` applied to x [b t in]."""

    def norm(self, name: str, x: Any) -> Any:
        """The norm ``name`` applied to x [b t m]."""

    def get(self, name: str) -> Any:
        """The parameter ``name``."""

    def under(self, prefix: str) -> Weights:
        """The weights under a further prefix (without the dot)."""


class FlatWeights:
    """Weights in a flat dict of tensors by canonical name, dense weights as [in out].

    Args:
        params: from ``load_params``.
        prefix: prepended to every name.
        dtype: dtype of the products.
    """

    def __init__(self, params: Mapping[str, Any], prefix: str, dtype: str) -> None:
        self.params, self.prefix, self.dtype = params, prefix, dtype

    def dense(self, name: str, x: Any) -> Any:
        """x kernel + bias."""
        bias = self.params.get(f"{self.prefix}{name}.bias")
        return engine.dense(x, self.get(f"{name}.weight"), None if bias is None else ops.cast(bias, self.dtype))

    def norm(self, name: str, x: Any) -> Any:
        """RMSNorm with this scale."""
        return engine.rms_norm(x, self.get(f"{name}.weight"))

    def get(self, name: str) -> Any:
        """The parameter in the compute dtype; the decay parameter keeps its own."""
        value = self.params[self.prefix + name]
        return value if name.endswith("recurrent_param") else ops.cast(value, self.dtype)

    def under(self, prefix: str) -> FlatWeights:
        """The weights under a further prefix."""
        return FlatWeights(self.params, f"{self.prefix}{prefix}.", self.dtype)


class LayerWeights:
    """Weights in Keras layers. Dense layers and norms are called, so adapted or quantised ones act as such."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def dense(self, name: str, x: Any) -> Any:
        """The layer's own dense layer of that name."""
        return getattr(self.layer, name)(x)

    def norm(self, name: str, x: Any) -> Any:
        """The layer's own norm of that name."""
        return getattr(self.layer, name)(x)

    def get(self, name: str) -> Any:
        """The variable at that path, as Keras gives it here: in the compute dtype, unless it is kept out of that."""
        owner, _, leaf = name.rpartition(".")
        found = getattr(self.layer, owner) if owner else self.layer
        return ops.convert_to_tensor(getattr(found, leaf))

    def under(self, prefix: str) -> LayerWeights:
        """The weights of a layer inside."""
        return LayerWeights(getattr(self.layer, prefix))


def named(weights: Weights, names: Mapping[str, str]) -> dict[str, Any]:
    """Parameters under the short names that an operation uses."""
    return {short: weights.get(name) for short, name in names.items()}
