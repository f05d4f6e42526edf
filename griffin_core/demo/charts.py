"""Line charts as inline SVG, so that a report is one file and needs no plotting library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 120, 16, 44
COLOURS = ("#2c6fbb", "#c2571a", "#4b8b3b", "#7b4fa3")
_TICKS = 6


@dataclass(frozen=True)
class Series:
    """One line: points in the order of x, or a level drawn across the chart.

    Attributes:
        name: shown at the line's end.
        points: (x, y) pairs; a single pair draws a horizontal, dashed line at its y.
    """

    name: str
    points: Sequence[tuple[float, float]]


def line_chart(series: Sequence[Series], x_label: str, y_label: str, title: str) -> str:
    """An SVG element with axes, grid and direct labels.

    Args:
        series: at least one with two points or more; values must be finite.

    Raises:
        ValueError: there is nothing to draw.
    """
    lines = [s for s in series if len(s.points) > 1]
    if not lines:
        raise ValueError("no series has two points; nothing to draw")
    xs = [x for s in lines for x, _ in s.points]
    ys = [y for s in series for _, y in s.points]
    frame = _Frame((min(xs), max(xs)), _padded(min(ys), max(ys)))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" class="chart">',
        f"<title>{escape(title)}</title>",
        *_axes(frame, x_label, y_label),
    ]
    ends = _spread([frame.y(s.points[-1][1]) for s in series])
    for index, (one, end) in enumerate(zip(series, ends, strict=True)):
        parts += _line(frame, one, COLOURS[index % len(COLOURS)], end)
    return "\n".join([*parts, "</svg>"])


@dataclass(frozen=True)
class _Frame:
    """The mapping from values to points of the picture."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / ((high - low) or 1.0)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / ((high - low) or 1.0)


def ticks(low: float, high: float, most: int = _TICKS) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) inside [low, high], ``most`` + 1 at the most."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _axes(frame: _Frame, x_label: str, y_label: str) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in ticks(*frame.y_range):
        y = frame.y(value)
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(*frame.x_range):
        parts.append(f'<text x="{frame.x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" class="axis"/>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    middle = (TOP + bottom) / 2
    turned = f'transform="rotate(-90 14 {middle})"'
    parts.append(f'<text x="14" y="{middle}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    return parts


def _line(frame: _Frame, series: Series, colour: str, label_y: float) -> list[str]:
    right = WIDTH - RIGHT
    if len(series.points) == 1:
        y = frame.y(series.points[0][1])
        shape = f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-dasharray="5 4"/>'
    else:
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in series.points)
        shape = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
    label = f'<text x="{right + 8}" y="{label_y + 4:.1f}" style="fill:{colour}">{escape(series.name)}</text>'
    return [shape, label]


def _spread(heights: list[float], gap: float = 15.0) -> list[float]:
    """Move labels apart that would overlap, keeping their order from top to bottom."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for above, below in itertools.pairwise(order):
        placed[below] = max(placed[below], placed[above] + gap)
    return placed
