"""The JAX backend: the functions of ``griffin_core.protocol`` on JAX arrays, pure and traceable."""

from __future__ import annotations

from typing import Any

from griffin_core.protocol import API_VERSION
from griffin_core_jax.arrays import from_numpy, to_numpy, vjp
from griffin_core_jax.attention.compose import local_attention
from griffin_core_jax.blocks import attention_block, mlp_block, recurrent_block, residual_block
from griffin_core_jax.conv.compose import conv1d
from griffin_core_jax.decoding.loop import decode
from griffin_core_jax.devices import devices, platform, targeting
from griffin_core_jax.kernels import KERNELS
from griffin_core_jax.layers import block_call, init_layer, init_layer_state
from griffin_core_jax.model import forward, hidden, logits
from griffin_core_jax.native import dump_params, dump_state, init_state, load_params, load_state, put, take
from griffin_core_jax.norms import rms_norm
from griffin_core_jax.programs import release_programs
from griffin_core_jax.scan.compose import gated_scan, linear_scan, recurrent_middle, rg_lru

COMPILES_SHAPES = True
"""A program is compiled for every shape; the conformance kit draws fewer cases then."""

__all__ = [
    "API_VERSION",
    "COMPILES_SHAPES",
    "KERNELS",
    "attention_block",
    "block_call",
    "conv1d",
    "decode",
    "devices",
    "dump_params",
    "dump_state",
    "forward",
    "from_numpy",
    "gated_scan",
    "hidden",
    "init_layer",
    "init_layer_state",
    "init_state",
    "linear_scan",
    "load_params",
    "load_state",
    "local_attention",
    "logits",
    "mlp_block",
    "platform",
    "put",
    "recurrent_block",
    "recurrent_middle",
    "release_programs",
    "residual_block",
    "rg_lru",
    "rms_norm",
    "take",
    "targeting",
    "to_numpy",
    "vjp",
]


def __getattr__(name: str) -> Any:
    # The trainer brings optimisers and checkpointing along; generation does not need them.
    if name == "Trainer":
        from griffin_core_jax.trainer import Trainer

        return Trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
