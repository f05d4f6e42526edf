"""A thin Flax NNX module around the pure functions, for those who want one. Needs flax (extra ``flax``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import jax
from flax import nnx

from griffin_core.config import GriffinConfig
from griffin_core.layouts.initialise import init_params
from griffin_core.shapes import Array
from griffin_core_jax.model import forward
from griffin_core_jax.native import dump_params, load_params

State = Mapping[str, Any]


class GriffinForCausalLM(nnx.Module):
    """The whole model: its parameters in the native form, as ``nnx.Param``. No decode state lives on it.

    Args:
        config: the architecture.
        params: from ``load_params``; not copied.
    """

    def __init__(self, config: GriffinConfig, params: Mapping[str, Any]) -> None:
        self.config = config
        self.params = nnx.data(jax.tree.map(nnx.Param, dict(params)))

    @classmethod
    def from_params(
        cls,
        config: GriffinConfig,
        canonical: Mapping[str, Array],
        dtype: str | None = None,
        device: str | None = None,
    ) -> Self:
        """A module with these canonical arrays (copied); arguments and errors as in ``load_params``."""
        return cls(config, load_params(config, canonical, dtype, device))

    @classmethod
    def from_config(cls, config: GriffinConfig, seed: int = 0, init: str = "paper", dtype: str | None = None) -> Self:
        """A module with the random weights of (config, seed, init): those every backend makes.

        Raises:
            ConfigError: unknown ``init`` or a negative seed.
        """
        return cls.from_params(config, init_params(config, seed, init), dtype)

    def native_params(self) -> dict[str, Any]:
        """The parameters as plain arrays, in the form that the backend's functions take."""
        found: dict[str, Any] = jax.tree.map(_value, self.params, is_leaf=_is_param)
        return found

    def canonical_params(self) -> dict[str, Array]:
        """The parameters as canonical NumPy arrays."""
        return dump_params(self.config, self.native_params())

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array | None = None,
        state: State | None = None,
        padding: str = "any",
        kernel: str | None = None,
        compute_dtype: str | None = None,
    ) -> tuple[jax.Array, dict[str, Any] | None]:
        """(logits float32 [b t v], state or None); arguments as in the backend's ``forward``."""
        return forward(self.config, self.native_params(), tokens, positions, state, padding, kernel, compute_dtype)


def _is_param(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Param)


def _value(leaf: Any) -> Any:
    return leaf[...] if _is_param(leaf) else leaf
