"""Run mlx-lm's RecurrentGemma on a case, from a directory in the style of Hugging Face.

Its window counts the query itself, as ours does. It knows neither positions nor a mask, so rows are single
documents without padding.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from golden_cases import Case

from griffin_core.checkpoints import native
from griffin_core.config import GriffinConfig
from griffin_core.shapes import Array

BLOCK_EPS = 1e-5
"""Epsilon of the norms within its blocks, whatever the config says; the final norm takes the config's."""


def versions() -> dict[str, str]:
    """Versions of what computes the outputs."""
    return {name: importlib.metadata.version(name) for name in ("mlx-lm", "mlx")}


def load(path: Path) -> Any:
    """The model in a directory, computing on the processor in the dtypes of its files."""
    import mlx.core as mx
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    return load_model(path)[0]


def run(config: GriffinConfig, weights: Mapping[str, Array], case: Case) -> Array:
    """Logits float32 [b t v] of canonical weights."""
    with tempfile.TemporaryDirectory() as folder:
        native.save(Path(folder) / "model", config, weights)
        return run_directory(Path(folder) / "model", config, case)


def run_directory(path: Path, config: GriffinConfig, case: Case) -> Array:
    """Logits float32 [b t v] of a directory, which says itself what ``config`` says."""
    import mlx.core as mx

    made = load(path)
    made.set_dtype(mx.float32)
    return logits(made, case)


def logits(made: Any, case: Case) -> Array:
    """Logits float32 [b t v], one call per piece, its cache carried. One piece runs without a cache."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache

    cache = make_prompt_cache(made) if len(case.pieces) > 1 else None
    pieces, start = [], 0
    for length in case.pieces:
        tokens = mx.array(case.tokens[:, start : start + length])
        pieces.append(np.array(made(tokens, cache=cache).astype(mx.float32)))
        start += length
    return np.concatenate(pieces, axis=1)


def generate(path: Path, prompt: str, length: int) -> list[int]:
    """Token ids of the prompt and its greedy continuation by ``length``, with the directory's own tokenizer."""
    import mlx.core as mx
    import mlx_lm

    mx.set_default_device(mx.cpu)
    made, tokenizer = mlx_lm.load(str(path))
    ids: list[int] = tokenizer.encode(prompt)
    return ids + [step.token for step in mlx_lm.stream_generate(made, tokenizer, ids, max_tokens=length)]


def first_of_batch(path: Path, prompts: list[list[int]]) -> list[tuple[int, float]]:
    """The first token that each prompt of a batch is continued with, and its log-probability."""
    import mlx.core as mx
    import mlx_lm

    mx.set_default_device(mx.cpu)
    made, tokenizer = mlx_lm.load(str(path))
    found = mlx_lm.batch_generate(
        made, tokenizer, prompts, max_tokens=1, return_token_ids=True, return_logprobs=True, verbose=False
    )
    return [(ids[0], float(scores[0])) for ids, scores in zip(found.token_ids, found.logprobs, strict=True)]
