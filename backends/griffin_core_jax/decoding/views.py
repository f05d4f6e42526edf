"""Each layer's own arrays from stacked ones, without a copy where the processor's memory allows it.

A loop over tokens that cuts a layer's weights out of a stack copies them for every token: three times the traffic of
a step that does nothing but read weights. On a processor each layer gets arrays that share the stack's memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from griffin_core.config import GriffinConfig
from griffin_core_jax.layout import SEGMENTS, segments

_views: dict[int, tuple[weakref.ref[Any], tuple[jax.Array, ...]]] = {}


def layer_weights(config: GriffinConfig, params: Mapping[str, Any]) -> tuple[dict[str, jax.Array], ...]:
    """One dict of arrays for each layer, in order. They are made once for each stack and forgotten with it."""
    found: list[tuple[int, dict[str, jax.Array]]] = []
    for segment, places in zip(segments(config), params[SEGMENTS], strict=True):
        for place, stacks in enumerate(places):
            parts = {name: cut(stack) for name, stack in stacks.items()}
            for number, layer in enumerate(segment.layers(place)):
                found.append((layer, {name: arrays[number] for name, arrays in parts.items()}))
    return tuple(weights for _, weights in sorted(found, key=lambda pair: pair[0]))


def cut(stack: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays along the first axis of a stack on a processor; they share its memory."""
    key = id(stack)
    kept = _views.get(key)
    if kept is not None and kept[0]() is stack:
        return kept[1]
    # The memory of a second array on the same buffer: views of it do not keep ``stack`` itself alive.
    memory = np.asarray(stack.addressable_shards[0].data)
    device = next(iter(stack.devices()))
    parts = tuple(jax.device_put(part, device, may_alias=True) for part in memory)
    _views[key] = (weakref.ref(stack, lambda _: _views.pop(key, None)), parts)
    return parts
