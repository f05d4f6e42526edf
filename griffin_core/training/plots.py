"""The loss curve as a picture, where matplotlib is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SMOOTHED_OVER = 0.02
"""Share of the run that the moving average covers."""


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def loss_curve(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw training loss (each step, and a moving average) and learning rate over the steps as a PNG.

    Args:
        records: lines of the metrics.
        path: file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
    from matplotlib.figure import Figure

    steps = [record for record in records if "loss" in record]
    if not steps:
        return
    x = np.array([record["step"] for record in steps])
    loss = np.array([record["loss"] for record in steps])
    width = max(1, int(SMOOTHED_OVER * len(x)))
    smooth = np.convolve(np.pad(loss, (width - 1, 0), mode="edge"), np.full(width, 1.0 / width), mode="valid")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(x, loss, color="#9db8d2", linewidth=0.8, label="each step")
    axes.plot(x, smooth, color="#1f4e79", linewidth=1.8, label=f"mean of {width} steps")
    axes.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0.9 * smooth.min(), min(loss.max(), 1.6 * smooth[0])))
    rate = axes.twinx()
    rate.plot(x, [record["learning_rate"] for record in steps], color="#c0504d", linewidth=0.8, linestyle="--")
    rate.set_ylabel("learning rate (dashed)")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
