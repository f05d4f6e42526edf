"""The canonical parameter table: the one place that knows a parameter's name, shape and role.

Names and orientation are those of the family's Hugging Face checkpoint: linears are [out, in],
gates are [h k k] and multiply from the right (``x @ w``), the conv is [d 1 w] with tap w-1 on the
current token, norms act as ``1 + weight``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from griffin_core.config import RECURRENT, GriffinConfig
from griffin_core.errors import CheckpointMismatch, nearest

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.final_norm.weight"
LM_HEAD = "lm_head.weight"
_LISTED = 10
_COMPARED = 1000
"""Names among which the one is looked for that was meant."""


@dataclass(frozen=True)
class Init:
    """How a parameter starts: a rule and, for normal draws, its standard deviation.

    ``rule`` is "zeros", "normal" or "recurrence" (the decay parameter; see ``initialise``).
    """

    rule: str
    std: float = 0.0


@dataclass(frozen=True)
class ParamSpec:
    """One row of the parameter table.

    Attributes:
        name: canonical name.
        shape: axis sizes, in the order of ``axes``.
        axes: logical axis names, for sharding tables.
        paper: initialisation of the Griffin paper.
        released: initialisation of the released (Flax) code.
        decay: whether AdamW decays it.
        quantise: whether weight-only quantisation may touch it.
        lora: whether it is a LoRA target.
        float32: kept in float32 while training, whatever the compute dtype.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    paper: Init
    released: Init
    decay: bool = False
    quantise: bool = False
    lora: bool = False
    float32: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def layer_prefix(layer: int) -> str:
    """The canonical prefix of one layer's names, dot included."""
    return f"model.layers.{layer}."


def param_table(config: GriffinConfig) -> tuple[ParamSpec, ...]:
    """Every parameter of a model, in canonical order. No array is allocated."""
    rows = [_normal(EMBEDDING, (config.vocab_size, config.width), ("vocab", "embed"), config.width**-0.5)]
    for layer, kind in enumerate(config.layer_kinds):
        rows += _layer(config, layer_prefix(layer), kind)
    rows.append(_zeros(FINAL_NORM, (config.width,), ("embed",)))
    if not config.tie_embeddings:
        rows.append(_normal(LM_HEAD, (config.vocab_size, config.width), ("vocab", "embed"), config.width**-0.5))
    return tuple(rows)


def parameter_count(config: GriffinConfig) -> int:
    """Number of parameters, tied embedding counted once."""
    return sum(row.size for row in param_table(config))


def check_params(config: GriffinConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a set of parameters that is not exactly the table.

    Args:
        shapes: shape by canonical name.

    Raises:
        CheckpointMismatch: naming up to ten each of missing, unused and misshapen parameters.
    """
    check_table({row.name: row.shape for row in param_table(config)}, shapes)


def check_table(table: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse names and shapes that are not exactly those of ``table``.

    Raises:
        CheckpointMismatch: naming up to ten each of missing, unused and misshapen parameters.
    """
    missing = [name for name in table if name not in shapes]
    unused = [name for name in shapes if name not in table]
    wrong = [n for n in table if n in shapes and tuple(shapes[n]) != table[n]]
    problems = []
    if missing:
        problems.append("missing: " + _listed(missing))
    if unused:
        known = list(itertools.islice(missing or table, _COMPARED))
        problems.append("unused: " + _listed(unused, lambda n: f"{n} ({nearest(n, known)})"))
    if wrong:
        problems.append("wrong shape: " + _listed(wrong, lambda n: f"{n} is {tuple(shapes[n])}, expected {table[n]}"))
    if problems:
        raise CheckpointMismatch("parameters do not match the config; " + "; ".join(problems))


def _listed(names: Sequence[str], form: Callable[[str], str] = str) -> str:
    rest = len(names) - _LISTED
    return ", ".join(map(form, names[:_LISTED])) + (f" and {rest} more" if rest > 0 else "")


def _layer(config: GriffinConfig, prefix: str, kind: str) -> Iterator[ParamSpec]:
    yield _zeros(prefix + "temporal_pre_norm.weight", (config.width,), ("embed",))
    temporal = prefix + "temporal_block."
    yield from _recurrent(config, temporal) if kind == RECURRENT else _attention(config, temporal)
    yield _zeros(prefix + "channel_pre_norm.weight", (config.width,), ("embed",))
    yield from _mlp(config, prefix + "mlp_block.")


def _recurrent(config: GriffinConfig, prefix: str) -> Iterator[ParamSpec]:
    m, d, h, k, w = config.width, config.lru_width, config.gate_blocks, config.block_width, config.conv_width
    for branch in ("linear_x", "linear_y"):
        yield from _linear(prefix + branch, (d, m), ("lru", "embed"), m**-0.5)
    yield from _linear(prefix + "linear_out", (m, d), ("embed", "lru"), (2.0 / config.num_layers / d) ** 0.5)
    yield _normal(prefix + "conv_1d.weight", (d, 1, w), ("lru", "one", "conv"), (0.01 / w) ** 0.5, dense=False)
    yield _zeros(prefix + "conv_1d.bias", (d,), ("lru",))
    lru = prefix + "rg_lru."
    yield ParamSpec(lru + "recurrent_param", (d,), ("lru",), Init("recurrence"), Init("recurrence"), float32=True)
    for gate in ("input_gate", "recurrent_gate"):
        yield ParamSpec(
            lru + gate + "_weight",
            (h, k, k),
            ("gate_blocks", "block_in", "block_out"),
            Init("normal", k**-0.5),
            Init("normal", d**-0.5),
        )
        yield _zeros(lru + gate + "_bias", (h, k), ("gate_blocks", "block_out"))


def _attention(config: GriffinConfig, prefix: str) -> Iterator[ParamSpec]:
    m, e = config.width, config.head_dim
    ne = config.num_heads * e
    yield _normal(prefix + "q_proj.weight", (ne, m), ("heads", "embed"), m**-0.5)
    yield _normal(prefix + "k_proj.weight", (e, m), ("kv", "embed"), m**-0.5)
    yield _normal(prefix + "v_proj.weight", (e, m), ("kv", "embed"), m**-0.5)
    yield from _linear(prefix + "o_proj", (m, ne), ("embed", "heads"), (2.0 / config.num_layers / ne) ** 0.5)


def _mlp(config: GriffinConfig, prefix: str) -> Iterator[ParamSpec]:
    m, f = config.width, config.mlp_width
    for branch in ("gate_proj", "up_proj"):
        # The Flax initialiser counts the stacked pair of branches in its fan-in.
        yield from _linear(prefix + branch, (f, m), ("mlp", "embed"), m**-0.5, released=(2 * m) ** -0.5)
    yield from _linear(prefix + "down_proj", (m, f), ("embed", "mlp"), (2.0 / config.num_layers / f) ** 0.5)


def _linear(
    name: str, shape: tuple[int, int], axes: tuple[str, str], std: float, released: float | None = None
) -> Iterator[ParamSpec]:
    yield _normal(name + ".weight", shape, axes, std, released=released)
    yield _zeros(name + ".bias", shape[:1], axes[:1])


def _normal(
    name: str,
    shape: tuple[int, ...],
    axes: tuple[str, ...],
    std: float,
    released: float | None = None,
    dense: bool = True,
) -> ParamSpec:
    matrix = dense and name not in (EMBEDDING, LM_HEAD)
    flags: dict[str, Any] = {"decay": matrix or name == LM_HEAD, "quantise": matrix, "lora": matrix}
    return ParamSpec(
        name, shape, axes, Init("normal", std), Init("normal", std if released is None else released), **flags
    )


def _zeros(name: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> ParamSpec:
    return ParamSpec(name, shape, axes, Init("zeros"), Init("zeros"))
