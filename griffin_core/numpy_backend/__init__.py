"""The numpy backend: the protocol in person. It computes with the float64 reference and returns the promised dtypes.

It has no trainer and no generic ``vjp``; both are refused by name.
"""

from griffin_core.numpy_backend.arrays import from_numpy, to_numpy
from griffin_core.numpy_backend.decode import decode
from griffin_core.numpy_backend.kernels import KERNELS
from griffin_core.numpy_backend.model import forward, hidden, logits
from griffin_core.numpy_backend.native import dump_params, dump_state, init_state, load_params, load_state, put, take
from griffin_core.numpy_backend.ops import (
    conv1d,
    gated_scan,
    linear_scan,
    local_attention,
    recurrent_middle,
    rg_lru,
    rms_norm,
)
from griffin_core.protocol import API_VERSION

__all__ = [
    "API_VERSION",
    "KERNELS",
    "conv1d",
    "decode",
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
    "put",
    "recurrent_middle",
    "rg_lru",
    "rms_norm",
    "take",
    "to_numpy",
]
