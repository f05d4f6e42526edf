"""Rotary tables against exact arithmetic, up to a million positions."""

from __future__ import annotations

from decimal import Decimal, getcontext

import numpy as np
import pytest

from griffin_core.reference.attention import rotate
from griffin_core.rotary import MAX_POSITION, RADIX, rotary_frequencies, rotary_tables
from griffin_core.shapes import UNIT_ROUNDOFF

HEAD = 32
POSITIONS = np.array([0, 1, 1023, 1024, 1025, 65_535, 65_536, 500_001, MAX_POSITION - 1])
TWO_PI = 2 * Decimal("3.14159265358979323846264338327950288419716939937510")


def exact_angles(positions: np.ndarray) -> np.ndarray:
    """position * 10000^(-2i/16) mod 2 pi, with fifty digits."""
    getcontext().prec = 50
    frequencies = [Decimal(10_000) ** (Decimal(-2 * i) / Decimal(HEAD // 2)) for i in range(HEAD // 4)]
    return np.array([[float(int(p) * f % TWO_PI) for f in frequencies] for p in positions])


def from_tables(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a backend does, in float32: add the angles of both parts of the position."""
    coarse, fine = rotary_tables(HEAD)
    (cx, sx), (cy, sy) = (np.moveaxis(t, 1, 0) for t in (coarse[positions // RADIX], fine[positions % RADIX]))
    return cx * cy - sx * sy, sx * cy + cx * sy


def test_tables_are_exact_at_every_scale_of_position() -> None:
    angles = exact_angles(POSITIONS)
    cos, sin = from_tables(POSITIONS)
    assert cos.dtype == np.float32
    # Two tables rounded once, two products and one sum: at most five roundings of numbers below 1.
    bound = 5 * UNIT_ROUNDOFF["float32"]
    assert np.abs(cos - np.cos(angles)).max() < bound
    assert np.abs(sin - np.sin(angles)).max() < bound


def test_the_naive_float32_angle_is_not_exact() -> None:
    """Why the tables exist: the same check fails for position * frequency in float32."""
    naive = np.cos(POSITIONS[:, None].astype(np.float32) * rotary_frequencies(HEAD).astype(np.float32))
    assert np.abs(naive - np.cos(exact_angles(POSITIONS))).max() > 1e-3


def test_the_reference_is_exact_too() -> None:
    x = np.zeros((1, len(POSITIONS), HEAD))
    x[..., : HEAD // 4] = 1.0
    y = rotate(x, POSITIONS[None])
    angles = exact_angles(POSITIONS)
    # The float64 angle itself carries one rounding of numbers up to 2^20.
    bound = 2 * MAX_POSITION * UNIT_ROUNDOFF["float64"]
    np.testing.assert_allclose(y[0, :, : HEAD // 4], np.cos(angles), atol=bound, rtol=0)
    np.testing.assert_allclose(y[0, :, HEAD // 4 : HEAD // 2], np.sin(angles), atol=bound, rtol=0)


def test_rotation_keeps_norms_and_the_unrotated_half() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 3, HEAD))
    positions = np.array([[0, 1, 2, 3, 4], [7, 8, 0, 1, 2]])
    y = rotate(x, positions)
    np.testing.assert_array_equal(y[..., HEAD // 2 :], x[..., HEAD // 2 :])
    np.testing.assert_array_equal(y[0, 0], x[0, 0])
    np.testing.assert_allclose((y**2).sum(-1), (x**2).sum(-1))


def test_scores_depend_on_the_distance_only() -> None:
    q, k = np.random.default_rng(1).standard_normal((2, 1, 1, HEAD))
    scores = [
        float((rotate(q[None], np.array([[p + 13]])) * rotate(k[None], np.array([[p]]))).sum()) for p in (0, 5, 900_000)
    ]
    np.testing.assert_allclose(scores, scores[0], atol=1e-8)


def test_tables_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        rotary_tables(HEAD)[0][0] = 0
