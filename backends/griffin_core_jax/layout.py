"""The native form's layout: which layers are stacked together, and what each array is called there.

Layers of one period of the pattern are scanned together, so a program has the size of one period however deep the
model is. The form of parameters and states alike::

    segments[i][j]     segment i, place j of its period: a dict of arrays whose first axis counts the repeats

A pattern (recurrent, recurrent, attention) over 26 layers gives eight periods of three, then one of two recurrent
layers: two segments. Weights of dense products are [in out] ("kernel"): a product with one row then streams them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from griffin_core.config import GriffinConfig
from griffin_core.layouts.params import EMBEDDING, FINAL_NORM, LM_HEAD, ParamSpec, layer_prefix, param_table

SEGMENTS = "segments"
TOP = {EMBEDDING: "embedding", FINAL_NORM: "final_norm", LM_HEAD: "head"}
"""Arrays that no layer owns: native name by canonical name."""

_DENSE = (
    "linear_x",
    "linear_y",
    "linear_out",
    *(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")),
)
_RENAMED = {
    "temporal_pre_norm.weight": "temporal_norm",
    "channel_pre_norm.weight": "channel_norm",
    "conv_1d.weight": "conv_weight",
    "conv_1d.bias": "conv_bias",
    **{f"{name}.weight": f"{name}.kernel" for name in _DENSE},
}


@dataclass(frozen=True)
class Segment:
    """Layers that are scanned together.

    Attributes:
        kinds: of the layers of one period.
        first: index of the first layer.
        repeats: how many periods.
    """

    kinds: tuple[str, ...]
    first: int
    repeats: int

    def layers(self, place: int) -> range:
        """Indices of the layers at one place of the period."""
        return range(self.first + place, self.first + len(self.kinds) * self.repeats, len(self.kinds))


@dataclass(frozen=True)
class Row:
    """One array of a layer: its canonical suffix, its name here, and whether the last two axes are exchanged."""

    suffix: str
    name: str
    transposed: bool


def segments(config: GriffinConfig) -> tuple[Segment, ...]:
    """The full periods of the pattern, then what is left, by runs of one kind."""
    pattern = _period(config.block_pattern)
    repeats, rest = divmod(config.num_layers, len(pattern))
    found = [Segment(pattern, 0, repeats)] if repeats else []
    at = repeats * len(pattern)
    for kind, run in groupby(pattern[:rest]):
        length = len(list(run))
        found.append(Segment((kind,), at, length))
        at += length
    return tuple(found)


def layer_rows(config: GriffinConfig, layer: int) -> tuple[Row, ...]:
    """The arrays of one layer, in canonical order."""
    prefix = layer_prefix(layer)
    return tuple(row_of(spec.name[len(prefix) :]) for spec in param_table(config) if spec.name.startswith(prefix))


def tree(config: GriffinConfig, leaf: Callable[[tuple[ParamSpec, ...], Row | None], Any]) -> dict[str, Any]:
    """A tree in the form of the parameters.

    Args:
        leaf: called with the canonical rows that an array holds (all layers of its stack) and its ``Row``, which is
            None for the arrays that no layer owns.
    """
    table = {spec.name: spec for spec in param_table(config)}
    found: dict[str, Any] = {native: leaf((table[name],), None) for name, native in TOP.items() if name in table}
    found[SEGMENTS] = tuple(
        tuple(
            {
                row.name: leaf(tuple(table[layer_prefix(i) + row.suffix] for i in segment.layers(place)), row)
                for row in layer_rows(config, segment.first + place)
            }
            for place in range(len(segment.kinds))
        )
        for segment in segments(config)
    )
    return found


def stacked_axes(spec: ParamSpec, row: Row | None) -> tuple[str, ...]:
    """Logical axes of the native array that holds ``spec``."""
    if row is None:
        return spec.axes
    return ("layers", *(spec.axes[::-1] if row.transposed else spec.axes))


def each_layer(config: GriffinConfig, stacks: Any) -> dict[int, Mapping[str, Any]]:
    """One dict of arrays for each layer, by index, from stacked parameters or states."""
    found = {}
    for segment, places in zip(segments(config), stacks, strict=True):
        for place, arrays in enumerate(places):
            for index, layer in enumerate(segment.layers(place)):
                found[layer] = {name: value[index] for name, value in arrays.items()}
    return dict(sorted(found.items()))


def find_place(stacks: Any, layer: int) -> tuple[int, int, int]:
    """(segment, place of the period, number in the stack) of a layer, from stacked arrays."""
    before = 0
    for index, places in enumerate(stacks):
        count = next(iter(places[0].values())).shape[0] * len(places)
        if layer < before + count:
            return index, (layer - before) % len(places), (layer - before) // len(places)
        before += count
    raise IndexError(f"layer {layer} of {before}")


def row_of(suffix: str) -> Row:
    """How the array of a canonical suffix ("mlp_block.up_proj.weight") is held here."""
    short = suffix.removeprefix("temporal_block.").removeprefix("mlp_block.").removeprefix("rg_lru.")
    name = _RENAMED.get(short, short)
    return Row(suffix, name, name.endswith(".kernel"))


def _period(pattern: tuple[str, ...]) -> tuple[str, ...]:
    """The shortest pattern whose repetition is this one."""
    for length in range(1, len(pattern)):
        if len(pattern) % length == 0 and pattern == pattern[:length] * (len(pattern) // length):
            return pattern[:length]
    return pattern
