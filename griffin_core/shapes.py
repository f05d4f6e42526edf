"""The legend of axis letters and the array types used in signatures.

====== ============================= ====== =============================
letter axis                          letter axis
====== ============================= ====== =============================
b      batch                         n      query heads
t      time                          e      head size
d      recurrent width               s      cache length
m      model width                   v      vocabulary
f      MLP width                     w      conv width
h      gate blocks                   k      block width, d / h
====== ============================= ====== =============================

A plain ``h`` as the *name* of an array is the recurrent state [b d]; as an axis letter it
counts gate blocks. NumPy's bfloat16 comes from ``ml_dtypes``.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
"""A NumPy array of any dtype; signatures add axes through jaxtyping."""

DTYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
"""Floating dtypes by the name used everywhere (configs, flags, files)."""

UNIT_ROUNDOFF: dict[str, float] = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Largest relative error of one rounding to nearest."""

SMALLEST_NORMAL: dict[str, float] = {
    "float64": 2.0**-1022,
    "float32": 2.0**-126,
    "float16": 2.0**-14,
    "bfloat16": 2.0**-126,
}
"""Below this magnitude a dtype loses relative precision (or flushes to zero)."""
