"""What one decode step needs beside the weights: small arrays derived from them, kept while the weights live.

Only small parameters are derived (norms, taps, gates, decays: under 2 % of a model); the large matrices are
read where they are.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from griffin_core.config import RECURRENT, GriffinConfig
from griffin_core.layouts.params import EMBEDDING, FINAL_NORM, layer_prefix
from griffin_core_torch.arrays import accumulate_dtype
from griffin_core_torch.conv.eager import tap_rows
from griffin_core_torch.scan.gated_eager import decay_rate

_SMALL = ("norm.weight", "conv_1d.weight", "conv_1d.bias", "_gate_weight", "_gate_bias", "recurrent_param")
_cache: dict[int, _Entry] = {}


@dataclass
class _Entry:
    settings: tuple[GriffinConfig, torch.dtype]
    sources: dict[str, tuple[weakref.ref[Tensor], int]]
    derived: dict[str, Any]

    def matches(self, settings: tuple[GriffinConfig, torch.dtype], small: dict[str, Tensor]) -> bool:
        """Whether these very tensors, unwritten since, are what was derived from."""
        return (
            self.settings == settings
            and self.sources.keys() == small.keys()
            and all(
                ref() is small[name] and version == _version(small[name])
                for name, (ref, version) in self.sources.items()
            )
        )


@dataclass(frozen=True)
class Recurrence:
    """The middle of a recurrent block in the order in which a step uses it.

    Attributes:
        taps: per phase of the ring of inputs, [w+1 d]: the taps in ring order, then the bias.
        gate_weight: compute dtype [h k 2k], recurrence gate first.
        gate_bias: compute dtype [h 1 2k].
        rates: [2 h 1 k]: log a, and twice that, per unit of the recurrence gate.
    """

    taps: tuple[Tensor, ...]
    gate_weight: Tensor
    gate_bias: Tensor
    rates: Tensor


def derive(config: GriffinConfig, params: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Any]:
    """Norm factors sqrt(m) (1 + scale) under each norm's canonical name, ``Recurrence`` under each layer's prefix.

    The result is kept for these very tensors and made again when one of them is replaced or written.
    """
    key = id(params[EMBEDDING])
    small = {name: value for name, value in params.items() if name == EMBEDDING or name.endswith(_SMALL)}
    entry = _cache.get(key)
    if entry is not None and entry.matches((config, dtype), small):
        return entry.derived
    derived = _derive(config, params, dtype)
    sources = {name: (weakref.ref(value), _version(value)) for name, value in small.items()}
    sources[EMBEDDING] = (weakref.ref(params[EMBEDDING], lambda _: _cache.pop(key, None)), sources[EMBEDDING][1])
    _cache[key] = _Entry((config, dtype), sources, derived)
    return derived


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version


def _derive(config: GriffinConfig, params: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Any]:

    def factor(name: str) -> Tensor:
        return params[name].detach().to(accumulate_dtype(dtype)).add(1.0).mul_(config.width**0.5)

    derived: dict[str, Any] = {FINAL_NORM: factor(FINAL_NORM)}
    for index, kind in enumerate(config.layer_kinds):
        prefix = layer_prefix(index)
        for norm in ("temporal_pre_norm.weight", "channel_pre_norm.weight"):
            derived[prefix + norm] = factor(prefix + norm)
        if kind == RECURRENT:
            derived[prefix] = _recurrence(config, params, prefix + "temporal_block.", dtype)
    return derived


def _recurrence(config: GriffinConfig, params: Mapping[str, Tensor], prefix: str, dtype: torch.dtype) -> Recurrence:
    wide = accumulate_dtype(dtype)

    def get(name: str) -> Tensor:
        return params[prefix + name].detach()

    weight = torch.cat([get(f"rg_lru.{gate}_gate_weight") for gate in ("recurrent", "input")], dim=2).to(dtype)
    bias = torch.cat([get(f"rg_lru.{gate}_gate_bias") for gate in ("recurrent", "input")], dim=1).to(dtype)
    rate = decay_rate(get("rg_lru.recurrent_param"), wide).view(config.gate_blocks, 1, config.block_width)
    taps = tap_rows(get("conv_1d.weight"), wide)
    conv_bias = get("conv_1d.bias").to(wide)[None]
    # In phase p the newest input stands in slot p, the oldest in the slot after it.
    phases = tuple(torch.cat([taps.roll(p + 1, dims=0), conv_bias]) for p in range(config.conv_width))
    return Recurrence(phases, weight, bias[:, None], torch.stack([rate, 2.0 * rate]))
