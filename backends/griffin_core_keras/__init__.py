"""The Keras 3 backend: the functions of ``griffin_core.protocol`` on each of Keras's engines, and Keras layers.

Importing this package settles the engine (``engine``) and makes the layers known to ``keras.models.load_model``.
"""

from __future__ import annotations

import importlib
from typing import Any

from griffin_core.protocol import API_VERSION
from griffin_core_keras.engine import NAME as ENGINE
from griffin_core_keras.engine import engine

# isort: split
# Only now, as these import Keras.
from griffin_core_keras.causal_lm import GriffinCausalLM
from griffin_core_keras.decoding import decode
from griffin_core_keras.layers import (
    RGLRU,
    CausalConv1D,
    Dense,
    Embedding,
    GatedMLP,
    LocalAttention,
    Projection,
    RecurrentBlock,
    ResidualBlock,
    RMSNorm,
)
from griffin_core_keras.model import forward, hidden, logits
from griffin_core_keras.native import dump_params, dump_state, init_state, load_params, load_state, put, take
from griffin_core_keras.optimizer import AdamW, WarmupCosine

KERNELS = engine.KERNELS
KERNELS_OF = engine.KERNELS_OF
COMPILES_SHAPES = engine.COMPILES_SHAPES

from_numpy, to_numpy, vjp = engine.from_numpy, engine.to_numpy, engine.vjp
linear_scan, gated_scan, rg_lru = engine.linear_scan, engine.gated_scan, engine.rg_lru
recurrent_middle, conv1d = engine.recurrent_middle, engine.conv1d
rms_norm, local_attention = engine.rms_norm, engine.local_attention
devices, platform = engine.devices, engine.platform
release_programs = engine.release_programs

__all__ = [
    "API_VERSION",
    "COMPILES_SHAPES",
    "ENGINE",
    "KERNELS",
    "KERNELS_OF",
    "RGLRU",
    "AdamW",
    "CausalConv1D",
    "Dense",
    "Embedding",
    "GatedMLP",
    "GriffinCausalLM",
    "LocalAttention",
    "Projection",
    "RMSNorm",
    "RecurrentBlock",
    "ResidualBlock",
    "WarmupCosine",
    "conv1d",
    "decode",
    "devices",
    "dump_params",
    "dump_state",
    "forward",
    "from_numpy",
    "gated_scan",
    "hidden",
    "init_state",
    "linear_scan",
    "load_params",
    "load_state",
    "local_attention",
    "logits",
    "platform",
    "put",
    "recurrent_middle",
    "release_programs",
    "rg_lru",
    "rms_norm",
    "take",
    "to_numpy",
    "vjp",
]

_LAZY = {
    "FitBatches": "feeding",
    "SampleText": "callbacks",
    "SaveAndResume": "callbacks",
    "Trainer": "trainer",
    "facade": "facades",
    "layout_map": "distribution",
    "model_parallel": "distribution",
}
"""Names for users, by the module that has them; generation needs none of them."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
