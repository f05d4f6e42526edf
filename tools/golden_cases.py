"""The inputs of the golden outputs: one tiny config, its weights, and the cases that every peer runs.

Everything is drawn from fixed seeds; the golden files store tokens, positions and weights as well, so that
reading them needs no random generator.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from griffin_core.config import GriffinConfig
from griffin_core.layouts.initialise import init_param
from griffin_core.layouts.params import Init, param_table
from griffin_core.shapes import Array

WINDOW = 9
"""Keys a query sees, itself included: what the official code does with its "8"."""

CONFIG = GriffinConfig(
    width=32,
    lru_width=32,
    mlp_width=48,
    num_heads=2,
    head_dim=16,
    gate_blocks=2,
    block_pattern=("recurrent", "recurrent", "attention"),
    num_layers=6,
    attention_window=WINDOW,
    vocab_size=40,
    logits_soft_cap=30.0,
    embedding_scale="sqrt_width",
)
SEED = 20240411
_NOISE = Init("normal", 0.1)
_FIRST_WORD = 3
"""Ids below are pad, end and start in the peers' tokenizers."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        name: key in the golden files.
        tokens: int32 [b t].
        positions: int32 [b t]; 0 starts a document, -1 is padding.
        pieces: how many columns each call gets: (t,) is one forward pass, (p, 1, 1, ...) prefill and decode.
    """

    name: str
    tokens: Array
    positions: Array
    pieces: tuple[int, ...]


def make_weights(config: GriffinConfig = CONFIG) -> dict[str, Array]:
    """Float32 weights that bfloat16 holds exactly; biases and norm scales are drawn too, so that none is idle."""
    weights = {}
    for row in param_table(config):
        noisy = dataclasses.replace(row, paper=_NOISE) if row.paper.rule == "zeros" else row
        weights[row.name] = init_param(noisy, SEED, "paper").astype(ml_dtypes.bfloat16).astype(np.float32)
    return weights


def digest(weights: Mapping[str, Array]) -> str:
    """SHA-256 over names and float32 bytes, in the table's order."""
    state = hashlib.sha256()
    for row in param_table(CONFIG):
        state.update(row.name.encode())
        state.update(np.ascontiguousarray(weights[row.name], np.float32).tobytes())
    return state.hexdigest()


def documents(*lengths: int) -> list[int]:
    """Positions of documents packed one after the other."""
    return [position for length in lengths for position in range(length)]


def left_padded(length: int, total: int) -> list[int]:
    """Positions of one document at the end of a row of ``total`` columns."""
    return [-1] * (total - length) + list(range(length))


def make_cases() -> dict[str, Case]:
    """Every case by name. Decode cases continue each row's last document one token at a time."""
    packed = [documents(17, 1, 12, 2), documents(3, 9, 1, 19)]
    padded = [left_padded(20, 20), left_padded(13, 20), left_padded(2, 20)]
    rows = {
        "full": ([documents(9)] * 2, (9,)),
        "beyond": ([documents(40)] * 2, (40,)),
        "packed": (packed, (32,)),
        "padded": (padded, (20,)),
        "decode": ([documents(33)] * 2, (21, *[1] * 12)),
        "packed_decode": ([_continued(row, 6) for row in packed], (32, *[1] * 6)),
        "padded_decode": ([_continued(row, 6) for row in padded], (20, *[1] * 6)),
        "chunked": ([documents(30)] * 2, (12, 9, 9)),
    }
    generator = np.random.Generator(np.random.Philox(key=SEED))
    cases = {}
    for name, (positions, pieces) in rows.items():
        array = np.array(positions, np.int32)
        tokens = generator.integers(_FIRST_WORD, CONFIG.vocab_size, array.shape).astype(np.int32)
        cases[name] = Case(name, np.where(array < 0, 0, tokens).astype(np.int32), array, pieces)
    return cases


def _continued(row: list[int], steps: int) -> list[int]:
    return row + [row[-1] + 1 + step for step in range(steps)]
