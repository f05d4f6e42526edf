"""``griffin verify --checkpoint A --against B``: the same weights, and the same logits?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from griffin_core import api
from griffin_core.checkpoints.checkpoint import Checkpoint
from griffin_core.checkpoints.compare import TensorComparison, compare_tensors
from griffin_core.checkpoints.detect import detect
from griffin_core.checkpoints.formats import FORMATS
from griffin_core.checkpoints.hub import local
from griffin_core.checkpoints.opening import open_checkpoint
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.shapes import Array

TOKENS = 64
"""Random tokens of each of two rows."""


@dataclass(frozen=True)
class LogitComparison:
    """Logits of both checkpoints for the same tokens.

    Attributes:
        backend, dtype: what computed them.
        tokens: per row, of two rows.
        largest: the largest absolute difference.
        scale: the largest absolute logit.
        same_choice: share of the tokens after which both rank the same token first.
    """

    backend: str
    dtype: str
    tokens: int
    largest: float
    scale: float
    same_choice: float


@dataclass(frozen=True)
class Comparison:
    """What two checkpoints have in common.

    Attributes:
        formats: of the two.
        config: fields in which their configs differ, with both values; then nothing else is compared.
        tensors: every parameter, in canonical order.
        logits: None when they were not asked for.
    """

    formats: tuple[str, str]
    config: dict[str, tuple[Any, Any]]
    tensors: list[TensorComparison]
    logits: LogitComparison | None

    @property
    def same(self) -> bool:
        """One config, and weights that are equal, or each other's rounding where dtypes differ."""
        return not self.config and all(tensor.same for tensor in self.tensors) and self._logits_agree

    @property
    def exact(self) -> bool:
        """The same, and in the same dtypes."""
        return self.same and all(len(set(tensor.dtypes)) == 1 for tensor in self.tensors)

    @property
    def _logits_agree(self) -> bool:
        """Equal weights in equal dtypes give equal logits."""
        rounded = any(len(set(tensor.dtypes)) == 2 for tensor in self.tensors)
        return self.logits is None or rounded or self.logits.largest == 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "same": self.same, "exact": self.exact}


def compare(
    checkpoint: str | Path,
    against: str | Path,
    backend: str | None = None,
    dtype: str = "float32",
    logits: bool = True,
    tokens: int = TOKENS,
    seed: int = 0,
    config: str | Path | GriffinConfig | None = None,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Compare two checkpoints of any formats by canonical names, then their logits on random tokens.

    Args:
        backend: what computes the logits, as in ``griffin_core.load``.
        dtype: of that computation.
        logits: compare logits as well; the models are loaded one after the other.
        tokens: random tokens per row.
        seed: of the tokens.
        config: as in ``griffin_core.load``, for both.
        progress: called with the number of bytes just compared.

    Raises:
        CheckpointError: one of them cannot be read.
        InputError: fewer than one token.
    """
    if tokens < 1:
        raise InputError(f"tokens={tokens}; expected at least one")
    paths = local(checkpoint), local(against)
    one, other = (open_checkpoint(path, config=_needed(path, config)) for path in paths)
    unlike = _unlike(one.config, other.config)
    if unlike:
        return Comparison((one.format, other.format), unlike, [], None)
    found = compare_tensors(one.params, other.params, progress)
    judged = _logits(one, other, paths, backend, dtype, tokens, seed, config) if logits else None
    return Comparison((one.format, other.format), {}, found, judged)


def _needed(path: Path, config: Any) -> Any:
    """The config, where the checkpoint has none of its own."""
    found = detect(path)
    return config if found is not None and FORMATS[found].layout is not None else None


def _unlike(one: GriffinConfig, other: GriffinConfig) -> dict[str, tuple[Any, Any]]:
    """Fields that differ; patterns that give the same layers do not."""
    a, b = one.to_dict(), other.to_dict()
    fields = {name: (a[name], b[name]) for name in a if a[name] != b[name]}
    if one.layer_kinds == other.layer_kinds:
        fields.pop("block_pattern", None)
    return fields


def _logits(
    one: Checkpoint,
    other: Checkpoint,
    paths: tuple[Path, Path],
    backend: str | None,
    dtype: str,
    tokens: int,
    seed: int,
    config: Any,
) -> LogitComparison:
    rows = np.random.default_rng(seed).integers(0, one.config.vocab_size, (2, tokens))
    found: list[Array] = []
    name = ""
    for path in paths:
        model = api.load(path, backend=backend, dtype=dtype, verify=False, config=_needed(path, config))
        name = model.backend
        found.append(model.forward(rows)[0])
        del model
    a, b = found
    return LogitComparison(
        backend=name,
        dtype=dtype,
        tokens=tokens,
        largest=float(np.abs(a - b).max()),
        scale=float(np.abs(a).max()),
        same_choice=float((a.argmax(-1) == b.argmax(-1)).mean()),
    )
