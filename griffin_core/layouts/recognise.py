"""What names and shapes of a checkpoint without a config tell about it, and the released model that they match.

They tell all but the window, the soft cap and the embedding scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from griffin_core.config import ATTENTION, RECURRENT, GriffinConfig
from griffin_core.errors import CheckpointMismatch
from griffin_core.layouts.params import EMBEDDING, layer_prefix
from griffin_core.layouts.places import Layout
from griffin_core.presets import PRESETS

RELEASED = ("recurrentgemma-2b", "recurrentgemma-9b", "griffin-official-7b", "hawk-official-7b")
"""Presets whose checkpoints need no config beside them."""
UNTOLD = ("attention_window", "logits_soft_cap", "embedding_scale")
"""Fields that no shape tells."""

_SIGNS = {RECURRENT: "temporal_block.linear_x.weight", ATTENTION: "temporal_block.q_proj.weight"}
"""A parameter that layers of a kind have, and no others."""
Shapes = Mapping[str, tuple[int, ...]]


def told_by_shapes(shapes: Shapes, layout: Layout) -> dict[str, Any]:
    """The fields of the config that names and shapes tell; ``vocab_size`` counts rows, padding included.

    Args:
        shapes: by name in the layout.

    Raises:
        CheckpointMismatch: names or ranks are not those of the family.
    """
    kinds = _layer_kinds(shapes, layout)
    found = _Shapes(shapes, layout)
    rows, width = found.shape(2, EMBEDDING)
    fields: dict[str, Any] = {"width": width, "vocab_size": rows, "num_layers": len(kinds), "block_pattern": kinds}
    fields["mlp_width"] = found.shape(2, layer_prefix(0) + "mlp_block.gate_proj.weight")[0]
    if RECURRENT in kinds:
        block = layer_prefix(kinds.index(RECURRENT)) + "temporal_block."
        fields["lru_width"], _, fields["conv_width"] = found.shape(3, block + "conv_1d.weight")
        fields["gate_blocks"] = found.shape(2, block + "rg_lru.recurrent_gate_bias")[0]
    if ATTENTION in kinds:
        block = layer_prefix(kinds.index(ATTENTION)) + "temporal_block."
        head_dim = found.shape(2, block + "k_proj.weight")[0]
        fields |= {"head_dim": head_dim, "num_heads": found.shape(2, block + "q_proj.weight")[0] // max(1, head_dim)}
    return fields


def released_config(shapes: Shapes, layout: Layout) -> tuple[str, GriffinConfig]:
    """Name and config of the released model with these shapes; rows that pad the vocabulary are allowed.

    Raises:
        CheckpointMismatch: none has them; the message says what the shapes tell and what they do not.
    """
    fields = told_by_shapes(shapes, layout)
    for name in RELEASED:
        config = PRESETS[name].config
        known = {**config.to_dict(), "block_pattern": list(config.layer_kinds)}
        if fields["vocab_size"] >= config.vocab_size and all(
            known[field] == value for field, value in fields.items() if field != "vocab_size"
        ):
            return name, config
    told = ", ".join(f"{field}={value}" for field, value in fields.items() if field != "block_pattern")
    raise CheckpointMismatch(
        f"no released model has these shapes ({told}), and shapes do not tell {', '.join(UNTOLD)}; "
        "give the config: a preset's name, or a JSON file with the config"
    )


class _Shapes:
    def __init__(self, shapes: Shapes, layout: Layout) -> None:
        self._shapes = shapes
        self._layout = layout

    def shape(self, rank: int, canonical: str) -> tuple[int, ...]:
        """The canonical shape of a parameter, from that of its tensor."""
        place = self._layout.place_of(canonical)
        found = self._shapes.get(place.stored)
        if found is None:
            raise CheckpointMismatch(f"tensor {place.stored!r} is missing; a checkpoint of this family has it")
        expected = len(place.shape((1,) * rank))
        if len(found) != expected:
            raise CheckpointMismatch(f"tensor {place.stored!r} has shape {found}; expected {expected} axes")
        canonical_shape: tuple[int, ...] = place.take(np.broadcast_to(np.zeros(()), found)).shape
        return canonical_shape


def _layer_kinds(shapes: Shapes, layout: Layout) -> list[str]:
    """The kind of each layer, from the names."""
    kinds: dict[int, str] = {}
    for layer in range(len(shapes)):
        for kind, sign in _SIGNS.items():
            if layout.place_of(layer_prefix(layer) + sign).stored in shapes:
                kinds[layer] = kind
    if not kinds or sorted(kinds) != list(range(len(kinds))):
        raise CheckpointMismatch(
            f"the names tell layers {sorted(kinds)}; expected recurrent or attention blocks counted from 0"
        )
    return [kinds[layer] for layer in range(len(kinds))]
