"""The spec as running code: float64 NumPy, a plain loop over time, stable forms.

It is imported by the numpy backend and by ``griffin_core.testing`` only.
"""

from griffin_core.reference.attention import local_attention
from griffin_core.reference.conv1d import conv1d
from griffin_core.reference.model import forward, hidden, logits
from griffin_core.reference.norms import rms_norm
from griffin_core.reference.rg_lru import gated_scan, recurrent_middle, rg_lru
from griffin_core.reference.scan import linear_scan
from griffin_core.reference.states import dump_state, init_state, load_state, put, take

__all__ = [
    "conv1d",
    "dump_state",
    "forward",
    "gated_scan",
    "hidden",
    "init_state",
    "linear_scan",
    "load_state",
    "local_attention",
    "logits",
    "put",
    "recurrent_middle",
    "rg_lru",
    "rms_norm",
    "take",
]
