"""Root mean square normalisation."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from griffin_core.config import NORM_EPS
from griffin_core.reference.numeric import wide
from griffin_core.shapes import Array


def rms_norm(x: Float[Array, "*lead m"], scale: Float[Array, " m"], eps: float = NORM_EPS) -> Float[Array, "*lead m"]:
    """x / sqrt(mean(x^2) + eps) * (1 + scale), over the last axis, float64."""
    x = wide(x)
    root: Array = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return x / root * (1.0 + wide(scale))
