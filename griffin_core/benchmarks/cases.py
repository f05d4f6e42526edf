"""What is timed: the model, the sizes, and what each path must reach."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from griffin_core.config import SQRT_WIDTH, GriffinConfig, from_json
from griffin_core.errors import InputError
from griffin_core.presets import GRIFFIN_PATTERN, preset

BENCH_110M = GriffinConfig(
    width=768,
    lru_width=768,
    mlp_width=2304,
    num_heads=6,
    head_dim=128,
    gate_blocks=6,
    block_pattern=GRIFFIN_PATTERN,
    num_layers=12,
    attention_window=1024,
    vocab_size=32_000,
    logits_soft_cap=30.0,
    embedding_scale=SQRT_WIDTH,
)
"""The model that the targets are stated for; the public implementations can run it too."""
BENCH_NAME = "110m"
THREADS = 2
PATHS = ("scan", "prefill", "decode", "train")
DEVICE_OPS = ("rg_lru", "gated_scan", "linear_scan", "conv1d")
"""What ``scan`` times on a device, forward and backward."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a ratio must reach.

    Attributes:
        limit: the bound.
        at_most: whether the ratio must stay below it (else it must reach it).
    """

    limit: float
    at_most: bool

    def met(self, ratio: float) -> bool:
        """Whether a measured ratio keeps the bound."""
        return ratio <= self.limit if self.at_most else ratio >= self.limit

    def text(self) -> str:
        """The bound for a table: "<= 1.4" or ">= 0.85"."""
        return f"{'<=' if self.at_most else '>='} {self.limit:g}"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of one measurement.

    Attributes:
        batch: rows.
        tokens: tokens per row and call: prompt, training sequence, tokens decoded per call, or scan length.
        context: tokens already seen when decoding starts.
        width: channels of the bare scan.
        runs: rounds of interleaved calls.
    """

    batch: int
    tokens: int
    context: int = 0
    width: int = 0
    runs: int = 7


DEFAULTS: dict[str, Sizes] = {
    "scan": Sizes(batch=1, tokens=4096, width=2560, runs=15),
    "prefill": Sizes(batch=1, tokens=2048, runs=7),
    "decode": Sizes(batch=1, tokens=16, context=1024, runs=9),
    "train": Sizes(batch=2, tokens=1024, runs=3),
}
TARGETS: dict[str, Target] = {
    "scan": Target(limit=0.40, at_most=False),
    "prefill": Target(limit=1.4, at_most=True),
    "decode": Target(limit=0.85, at_most=False),
    "train": Target(limit=1.6, at_most=True),
}
"""For the torch backend, float32, at ``DEFAULTS`` and ``THREADS``. Time over the products' time where the ratio is
to stay below; for decode the products' time over ours, for the scan the copy's time over ours."""


_LARGE = ((8, 8192, 2560), (1, 131_072, 4096))
_SMALL = ((1, 8192, 2560), (32, 2048, 1024))


def device_target(name: str, shape: tuple[int, int, int], dtype: str) -> Target | None:
    """What part of a copy's rate a bfloat16 pass of the fused recurrence must reach on a GPU; None elsewhere."""
    if dtype != "bfloat16" or not name.startswith("gated_scan") or shape not in (*_LARGE, *_SMALL):
        return None
    large = 0.90 if "forward" in name else 0.85
    return Target(limit=large if shape in _LARGE else 0.75, at_most=False)


def resolve_config(name: str | None, file: str | None) -> tuple[str, GriffinConfig]:
    """(name, config) of what the user named: "110m", a preset, or a file with a config's JSON.

    Raises:
        InputError: both are given, or the file cannot be read.
        ConfigError: no such preset, or not a config.
    """
    if file is not None:
        if name is not None:
            raise InputError(f"--preset {name} and --config {file} are both given; give one")
        path = Path(file)
        if not path.is_file():
            raise InputError(f"config {file} is not a file; give a JSON file, or --preset with a name")
        return path.name, from_json(path.read_text())
    if name is None or name == BENCH_NAME:
        return BENCH_NAME, BENCH_110M
    return name, preset(name).config
