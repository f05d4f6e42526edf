"""Runs that are known to work, as constants: what the demo trains and what made the packaged checkpoint."""

from __future__ import annotations

from griffin_core.config import GriffinConfig
from griffin_core.presets import BYTE_VOCAB, GRIFFIN_PATTERN, preset
from griffin_core.schedules import TrainerOptions
from griffin_core.training.spec import TrainSpec


def _byte_config(width: int, lru_width: int, layers: int, heads: int, window: int) -> GriffinConfig:
    return GriffinConfig(
        width=width,
        lru_width=lru_width,
        mlp_width=3 * width,
        num_heads=heads,
        head_dim=width // heads,
        gate_blocks=4,
        block_pattern=GRIFFIN_PATTERN,
        num_layers=layers,
        attention_window=window,
        vocab_size=BYTE_VOCAB,
    )


DEMO = TrainSpec(
    name="griffin-demo",
    config=_byte_config(width=128, lru_width=128, layers=6, heads=4, window=128),
    options=TrainerOptions(steps=1500, learning_rate=4e-3, final_fraction=0.05, warmup=40, beta2=0.98),
    batch=2,
    length=256,
    checkpoint_every=0,
)
"""1.2 million parameters on the embedded corpus; the demo sets ``steps`` to what its time allows. At this size
small steps learn more than large ones from the same tokens.
"""

PACKAGED = TrainSpec(
    name="griffin-mini",
    config=preset("griffin-mini").config,
    options=TrainerOptions(steps=1200, learning_rate=4e-3, warmup=60),
    batch=4,
    length=512,
)
"""The package's checkpoint: ``griffin train --preset griffin-mini --steps 1200 --batch 4 --length 512 --lr 0.004``."""
