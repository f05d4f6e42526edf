"""How much memory a model needs, from its tables alone, and a refusal with the figure before it is allocated.

Weights, states, gradients and moments are exact. Activations are an estimate of what a backend holds at once;
they are stated apart from the exact parts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from griffin_core.config import RECURRENT, GriffinConfig
from griffin_core.errors import ConfigError, NotEnoughMemory, nearest
from griffin_core.layouts.params import param_table, parameter_count
from griffin_core.layouts.states import state_bytes
from griffin_core.shapes import DTYPES

PREFILL_TOKENS = 2048
"""Tokens in flight during prefill, all rows together."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Estimate:
    """Bytes of one use of a model, by part."""

    weights: int
    state: int = 0
    gradients: int = 0
    moments: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        return self.weights + self.state + self.gradients + self.moments + self.activations


def weight_bytes(config: GriffinConfig, dtype: str = "float32") -> int:
    """Bytes of the weights in a dtype; what the parameter table keeps in float32 stays so in narrower dtypes."""
    width = _itemsize(dtype)
    return sum(row.size * (max(width, 4) if row.float32 else width) for row in param_table(config))


def inference(config: GriffinConfig, dtype: str = "float32", batch: int = 1, capacity: int | None = None) -> Estimate:
    """Memory to read prompts and to generate.

    Args:
        dtype: of weights and products.
        batch: rows b.
        capacity: tokens that global layers hold; needed only when a layer is global.
    """
    width = _itemsize(dtype)
    return Estimate(
        weights=weight_bytes(config, dtype),
        state=state_bytes(config, batch, capacity, width),
        activations=PREFILL_TOKENS * _widest_layer(config) * max(width, 4),
    )


def training(
    config: GriffinConfig,
    batch: int,
    length: int,
    compute_dtype: str = "float32",
    checkpoint_activations: bool = False,
) -> Estimate:
    """Memory of AdamW training: float32 weights, gradients and two moments, and what the backward pass needs.

    Args:
        batch, length: rows b and tokens t of a step.
        compute_dtype: of products; a narrower one adds a copy of the weights.
        checkpoint_activations: only the input of each layer is kept, and one layer's inside at a time.
    """
    width = _itemsize(compute_dtype)
    full = 4 * parameter_count(config)
    copy = weight_bytes(config, compute_dtype) if width < 4 else 0
    layers = [_layer_values(config, kind) for kind in config.layer_kinds]
    kept = config.num_layers * config.width + max(layers) if checkpoint_activations else sum(layers)
    kept += 2 * max(layers)  # the layer in work, forward or backward, and its gradients
    return Estimate(full + copy, 0, full, 2 * full, batch * length * kept * width)


def available() -> int | None:
    """Bytes of main memory that can still be taken (the control group's limit counts); None if unknown."""
    figures = [figure for figure in (_free_memory(), _group_room()) if figure is not None]
    return min(figures, default=None)


def require(needed: int, what: str, room: int | None = None) -> None:
    """Refuse what does not fit, before anything of it is allocated.

    Args:
        needed: bytes.
        what: what they are for.
        room: bytes there are; None asks ``available``.

    Raises:
        NotEnoughMemory: giving both figures.
    """
    room = available() if room is None else room
    if room is not None and needed > room:
        raise NotEnoughMemory(
            f"{what} needs {human(needed)}, but {human(room)} are free; use a smaller model, batch or length, "
            "or a narrower dtype"
        )


def human(size: int) -> str:
    """A size in decimal units, three significant digits: 1.24 GB."""
    value, units = float(size), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000.0, units[1:]
    return f"{size} bytes" if units[0] == "bytes" else f"{value:.3g} {units[0]}"


def _itemsize(dtype: str) -> int:
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; {nearest(dtype, DTYPES)}")
    return DTYPES[dtype].itemsize


def _layer_values(config: GriffinConfig, kind: str) -> int:
    """Values that one layer keeps per token for its backward pass: inputs of norms, products and gates."""
    m, d, f = config.width, config.lru_width, config.mlp_width
    if kind == RECURRENT:
        temporal = 2 * m + 6 * d  # block input, norm; both branches, conv, two gates, product
    else:
        temporal = 2 * m + 2 * config.num_heads * config.head_dim + 2 * config.head_dim
    return temporal + 2 * m + 3 * f


def _widest_layer(config: GriffinConfig) -> int:
    """Values per token in flight while one layer runs."""
    keys = PREFILL_TOKENS if config.attention_window is None else min(PREFILL_TOKENS, config.attention_window)
    scores = 0 if set(config.layer_kinds) == {RECURRENT} else 2 * config.num_heads * keys
    return max(_layer_values(config, kind) for kind in set(config.layer_kinds)) + scores


def _free_memory() -> int | None:
    if not _MEMINFO.exists():
        return None
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _group_room() -> int | None:
    """What the control group still allows; pages that only cache files count as free."""
    files = [_CGROUP / f"memory.{name}" for name in ("max", "current", "stat")]
    if not all(os.access(file, os.R_OK) for file in files):
        return None
    limit, used, stat = (file.read_text().strip() for file in files)
    cached = dict(line.split() for line in stat.splitlines()).get("inactive_file", 0)
    return None if limit == "max" else max(0, int(limit) - int(used) + int(cached))
