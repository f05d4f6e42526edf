"""What the backward pass keeps of each layer, by name, and what it computes a second time.

"block" keeps a layer's input alone. "outputs" keeps the outputs of its two row-parallel products as well: under
tensor parallelism each of them ends an all-reduce, and the second computation then repeats none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from griffin_core.errors import ConfigError, nearest
from griffin_core_jax.blocks import Constrain, unconstrained
from griffin_core_jax.model import Wrap

NONE = "none"
BLOCK = "block"
OUTPUTS = "outputs"
POLICIES = (NONE, BLOCK, OUTPUTS)
KEPT = ("temporal_out", "mlp_out")
"""Activations that "outputs" keeps: names of ``blocks.Constrain``."""


def wrap_layers(policy: str) -> Wrap | None:
    """What stands around each layer (``wrap`` of ``model.run_hidden`` and of ``step.train_step``).

    Args:
        policy: "none", "block" or "outputs"; the last needs ``named`` around the ``constrain`` of the same program.

    Raises:
        ConfigError: there is no such policy.
    """
    if policy not in POLICIES:
        raise ConfigError(f"unknown remat policy {policy!r}; {nearest(policy, POLICIES)}")
    if policy == NONE:
        return None
    policies = jax.checkpoint_policies
    rule = policies.nothing_saveable if policy == BLOCK else policies.save_only_these_names(*KEPT)

    def wrap(layer: Callable[..., Any]) -> Callable[..., Any]:
        return jax.checkpoint(layer, policy=rule)  # type: ignore[no-any-return]

    return wrap


def named(constrain: Constrain = unconstrained) -> Constrain:
    """``constrain``, after which the activations of ``KEPT`` carry their names, for "outputs" to find."""

    def constrain_and_name(name: str, x: Array) -> Array:
        x = constrain(name, x)
        return checkpoint_name(x, name) if name in KEPT else x

    return constrain_and_name
