"""Named configs. A preset fixes shapes; weights come from ``griffin.init`` or a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from griffin_core.config import ATTENTION, RECURRENT, SQRT_WIDTH, GriffinConfig
from griffin_core.errors import ConfigError, nearest

GRIFFIN_PATTERN = (RECURRENT, RECURRENT, ATTENTION)
HAWK_PATTERN = (RECURRENT,)
MQA_PATTERN = (ATTENTION,)

BYTE_VOCAB = 264
"""256 bytes, five special tokens, and room to a multiple of 8."""


@dataclass(frozen=True)
class Preset:
    """A named config, the initialisation it was published with, and one line about it."""

    name: str
    config: GriffinConfig
    init: str
    about: str


# size: width, lru_width, layers, heads (Griffin, table 2); MLP 3x, head size 128, 16 gate blocks
_PAPER_SIZES: dict[str, tuple[int, int, int, int]] = {
    "100m": (768, 1024, 12, 6),
    "200m": (1024, 1536, 12, 8),
    "400m": (1536, 2048, 12, 12),
    "1b": (2048, 2560, 24, 16),
    "3b": (3072, 4096, 24, 24),
    "7b": (4096, 5632, 32, 32),
    "14b": (5120, 8192, 40, 40),
}
_PAPER_FAMILIES: dict[str, tuple[tuple[str, ...], int | None]] = {
    "mqa": (MQA_PATTERN, None),
    "hawk": (HAWK_PATTERN, 1024),
    "griffin": (GRIFFIN_PATTERN, 1024),
}


def _paper(family: str, size: str) -> Preset:
    width, lru_width, layers, heads = _PAPER_SIZES[size]
    pattern, window = _PAPER_FAMILIES[family]
    config = GriffinConfig(
        width=width,
        lru_width=lru_width,
        mlp_width=3 * width,
        num_heads=heads,
        head_dim=width // heads,
        gate_blocks=16,
        block_pattern=pattern,
        num_layers=layers,
        attention_window=window,
        vocab_size=32_000,
    )
    extra = "" if family == "griffin" or size != "14b" else "; the paper trained 14b as Griffin only"
    return Preset(f"{family}-{size}", config, "paper", f"{family} at the paper's {size} shape{extra}")


def _released(name: str, width: int, heads: int, layers: int) -> Preset:
    config = GriffinConfig(
        width=width,
        lru_width=width,
        mlp_width=3 * width,
        num_heads=heads,
        head_dim=256,
        gate_blocks=heads,
        block_pattern=GRIFFIN_PATTERN,
        num_layers=layers,
        attention_window=2049,
        vocab_size=256_000,
        logits_soft_cap=30.0,
        embedding_scale=SQRT_WIDTH,
    )
    return Preset(
        name, config, "released", "the released RecurrentGemma; a query sees 2049 keys, as the official code does"
    )


def _official_7b(name: str, pattern: tuple[str, ...]) -> Preset:
    config = _paper("griffin", "7b").config.replace(
        block_pattern=pattern, gate_blocks=32, vocab_size=256_000, attention_window=1025
    )
    return Preset(name, config, "released", "the official code's 7B preset: 32 gate blocks, vocabulary 256 000")


def _tiny(name: str, pattern: tuple[str, ...], window: int | None, released: bool = False) -> Preset:
    config = GriffinConfig(
        width=128,
        lru_width=128 if released else 192,
        mlp_width=384,
        num_heads=4,
        head_dim=32,
        gate_blocks=4,
        block_pattern=pattern,
        num_layers=6,
        attention_window=window,
        vocab_size=BYTE_VOCAB,
        logits_soft_cap=30.0 if released else None,
        embedding_scale=SQRT_WIDTH if released else None,
    )
    return Preset(name, config, "released" if released else "paper", "byte-level, about a million parameters")


def _mini() -> Preset:
    config = _tiny("griffin-tiny", GRIFFIN_PATTERN, 256).config.replace(
        width=192, mlp_width=576, lru_width=192, head_dim=48
    )
    return Preset("griffin-mini", config, "paper", "byte-level, under three million parameters")


def _all_presets() -> dict[str, Preset]:
    presets = [_paper(family, size) for family in _PAPER_FAMILIES for size in _PAPER_SIZES]
    presets += [_released("recurrentgemma-2b", 2560, 10, 26), _released("recurrentgemma-9b", 4096, 16, 38)]
    presets += [_official_7b("griffin-official-7b", GRIFFIN_PATTERN), _official_7b("hawk-official-7b", HAWK_PATTERN)]
    presets += [
        _tiny("griffin-tiny", GRIFFIN_PATTERN, 128),
        _tiny("hawk-tiny", HAWK_PATTERN, 128),
        _tiny("mqa-tiny", MQA_PATTERN, None),
        _tiny("recurrentgemma-tiny", GRIFFIN_PATTERN, 129, released=True),
        _mini(),
    ]
    return {preset.name: preset for preset in presets}


PRESETS: dict[str, Preset] = _all_presets()


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ConfigError: there is none; the nearest name is given.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; {nearest(name, PRESETS)}")
    return PRESETS[name]
