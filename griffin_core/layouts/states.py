"""The canonical decode state: a flat dict of arrays, batch on axis 0, fixed size unless a layer is global.

================ ============ ======= =====================================================
name             shape        dtype   meaning
================ ============ ======= =====================================================
position         [b]          int32   tokens of the current document already seen
layers.N.h       [b d]        float32 recurrent state
layers.N.conv    [b w-1 d]    compute last w-1 inputs of the conv, oldest first; zeros before a
                                      document's start
layers.N.k, .v   [b s e]      compute keys (rotated) and values of the current document: position p
                                      stands in slot p mod s; slots not yet written are zero
================ ============ ======= =====================================================

s is ``attention_window``, or the capacity that a global layer was given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from griffin_core.config import RECURRENT, GriffinConfig
from griffin_core.errors import ConfigError, StateMismatch

POSITION = "position"


@dataclass(frozen=True)
class StateSpec:
    """One row of the state table. ``dtype`` None means the compute dtype."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    dtype: str | None = None


def cache_length(config: GriffinConfig, capacity: int | None) -> int:
    """s: the window, or the capacity of a global layer.

    Raises:
        ConfigError: a global layer without a capacity, or a capacity that is not positive.
    """
    if config.attention_window is not None:
        return config.attention_window
    if capacity is None:
        raise ConfigError("this model attends globally; its state needs capacity=N, the most tokens it will hold")
    if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
        raise ConfigError(f"capacity={capacity!r}; expected a positive integer, the most tokens the state will hold")
    return capacity


def state_table(config: GriffinConfig, batch: int, capacity: int | None = None) -> tuple[StateSpec, ...]:
    """Every array of a decode state, in canonical order.

    Args:
        batch: number of rows b.
        capacity: tokens that global layers can hold; ignored when every attention layer has a window.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ConfigError(f"batch={batch!r}; expected a positive integer")
    rows = [StateSpec(POSITION, (batch,), ("batch",), "int32")]
    for layer, kind in enumerate(config.layer_kinds):
        prefix = f"layers.{layer}."
        if kind == RECURRENT:
            rows.append(StateSpec(prefix + "h", (batch, config.lru_width), ("batch", "lru"), "float32"))
            conv = (batch, config.conv_width - 1, config.lru_width)
            rows.append(StateSpec(prefix + "conv", conv, ("batch", "conv", "lru")))
        else:
            shape = (batch, cache_length(config, capacity), config.head_dim)
            rows += [StateSpec(prefix + name, shape, ("batch", "cache", "kv")) for name in ("k", "v")]
    return tuple(rows)


def state_bytes(config: GriffinConfig, batch: int, capacity: int | None = None, itemsize: int = 4) -> int:
    """Bytes of a state whose compute dtype has ``itemsize`` bytes."""
    size = {None: itemsize, "float32": 4, "int32": 4}
    return sum(math.prod(row.shape) * size[row.dtype] for row in state_table(config, batch, capacity))


def state_capacity(config: GriffinConfig, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The capacity that a state of these shapes was made with (None when no layer is global)."""
    if not config.has_global_attention:
        return None
    first = config.layer_kinds.index("attention")
    return shapes[f"layers.{first}.k"][1]


def check_state(config: GriffinConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a state whose names or shapes are not the table's.

    Raises:
        StateMismatch: naming the first difference.
    """
    if POSITION not in shapes:
        raise StateMismatch(f"state has no {POSITION!r}; make one with init_state or load_state")
    try:
        (batch,) = shapes[POSITION]
        table = {row.name: row.shape for row in state_table(config, batch, state_capacity(config, shapes))}
    except KeyError as error:
        raise StateMismatch(f"state lacks {error.args[0]!r}; it belongs to another config") from error
    except (ConfigError, IndexError, ValueError) as error:
        raise StateMismatch("state has arrays without a batch or a cache axis; make one with init_state") from error
    for name in sorted(set(table) ^ set(shapes)):
        raise StateMismatch(
            f"state {'lacks' if name in table else 'has an unknown'} {name!r}; it belongs to another config"
        )
    for name, shape in table.items():
        if tuple(shapes[name]) != shape:
            raise StateMismatch(
                f"state {name!r} is {tuple(shapes[name])}, expected {shape}; it belongs to another config"
            )
