"""The family's layers for Keras models: serialisable, symbolic, masked, with states as explicit values."""

from griffin_core_keras.layers.attention import LocalAttention
from griffin_core_keras.layers.conv1d import CausalConv1D
from griffin_core_keras.layers.dense import Dense
from griffin_core_keras.layers.embedding import Embedding, Projection
from griffin_core_keras.layers.mlp import GatedMLP
from griffin_core_keras.layers.recurrent import RecurrentBlock
from griffin_core_keras.layers.residual import ResidualBlock
from griffin_core_keras.layers.rg_lru import RGLRU
from griffin_core_keras.layers.rms_norm import RMSNorm

__all__ = [
    "RGLRU",
    "CausalConv1D",
    "Dense",
    "Embedding",
    "GatedMLP",
    "LocalAttention",
    "Projection",
    "RMSNorm",
    "RecurrentBlock",
    "ResidualBlock",
]
