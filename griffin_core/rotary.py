"""Rotary tables that stay exact at long positions.

A float32 ``position * frequency`` is off by 4e-3 radians at position 64k. Instead the position is split,
``p = 1024 q + r``; cosines and sines of both parts come from tables computed in float64, and a backend
adds the angles: cos(x+y) = cos x cos y - sin x sin y, sin(x+y) = sin x cos y + cos x sin y.
"""

from __future__ import annotations

import functools

import numpy as np

from griffin_core.config import ROPE_BASE
from griffin_core.shapes import Array

RADIX = 1024
MAX_POSITION = RADIX * RADIX
"""Positions must stay below this; ``check_positions`` refuses more."""


def rotary_frequencies(head_dim: int) -> Array:
    """float64 [e/4]: base^(-2 i / (e/2)). The first half of each head is rotated, in split-half pairs."""
    rotated = head_dim // 2
    return ROPE_BASE ** (-2.0 * np.arange(rotated // 2, dtype=np.float64) / rotated)


@functools.lru_cache(maxsize=8)
def rotary_tables(head_dim: int) -> tuple[Array, Array]:
    """(coarse, fine): float32 [1024, 2, e/4] each; axis 1 is (cos, sin) of 1024 q f and of r f."""
    frequencies = rotary_frequencies(head_dim)
    steps = np.arange(RADIX, dtype=np.float64)[:, None]
    tables = []
    for scale in (float(RADIX), 1.0):
        angles = scale * steps * frequencies
        table = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        table.setflags(write=False)
        tables.append(table)
    return tables[0], tables[1]
