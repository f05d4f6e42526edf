"""What names and shapes of an official checkpoint tell about its config, and the released model that they match.

They tell all but the window, the soft cap and the embedding scale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from griffin_core.config import ATTENTION, RECURRENT, GriffinConfig
from griffin_core.errors import CheckpointMismatch
from griffin_core.layouts.official import EMBEDDING_PATH, Form
from griffin_core.presets import PRESETS

RELEASED = ("recurrentgemma-2b", "recurrentgemma-9b", "griffin-official-7b", "hawk-official-7b")
"""Presets whose official checkpoints need no config beside them."""
UNTOLD = ("attention_window", "logits_soft_cap", "embedding_scale")
"""Fields that no shape tells."""

_BLOCKS = {"recurrent_block": RECURRENT, "attention_block": ATTENTION}
Shapes = Mapping[str, tuple[int, ...]]


def told_by_shapes(shapes: Shapes, form: Form) -> dict[str, Any]:
    """The fields of the config that names and shapes tell; ``vocab_size`` counts rows, padding included.

    Args:
        shapes: by official name.

    Raises:
        CheckpointMismatch: names or ranks are not those of the family.
    """
    kinds = _layer_kinds(shapes, form)
    found = _Shapes(shapes, form)
    rows, width = found.shape(2, *EMBEDDING_PATH)
    fields: dict[str, Any] = {"width": width, "vocab_size": rows, "num_layers": len(kinds), "block_pattern": kinds}
    fields["mlp_width"] = found.shape(3, "blocks.0", "mlp_block", "ffw_up", "w")[2]
    if RECURRENT in kinds:
        path = (f"blocks.{kinds.index(RECURRENT)}", "recurrent_block")
        taps, lru_width = found.shape(2, *path, "conv_1d", "w")
        blocks = found.shape(2, *path, "rg_lru", "a_gate", "b")[0]
        fields |= {"lru_width": lru_width, "conv_width": taps, "gate_blocks": blocks, "num_heads": blocks}
    if ATTENTION in kinds:
        path = (f"blocks.{kinds.index(ATTENTION)}", "attention_block")
        head_dim = min(found.shape(2, *path, "proj_k", form.dense))
        fields |= {"head_dim": head_dim, "num_heads": width // max(1, head_dim)}
    return fields


def released_config(shapes: Shapes, form: Form) -> tuple[str, GriffinConfig]:
    """Name and config of the released model with these shapes; rows that pad the vocabulary are allowed.

    Raises:
        CheckpointMismatch: none has them; the message says what the shapes tell and what they do not.
    """
    fields = told_by_shapes(shapes, form)
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
    def __init__(self, shapes: Shapes, form: Form) -> None:
        self._shapes = shapes
        self._separator = form.separator

    def shape(self, rank: int, *path: str) -> tuple[int, ...]:
        name = self._separator.join(path)
        found = self._shapes.get(name)
        if found is None:
            raise CheckpointMismatch(f"tensor {name!r} is missing; an official checkpoint of this family has it")
        if len(found) != rank:
            raise CheckpointMismatch(f"tensor {name!r} has shape {found}; expected {rank} axes")
        return found


def _layer_kinds(shapes: Shapes, form: Form) -> list[str]:
    """The kind of each layer, from the names."""
    pattern = re.compile(rf"blocks\.(\d{{1,4}}){re.escape(form.separator)}(\w+_block)\b")
    kinds: dict[int, str] = {}
    for name in shapes:
        match = pattern.match(name)
        if match and match[2] in _BLOCKS:
            kinds[int(match[1])] = _BLOCKS[match[2]]
    if not kinds or sorted(kinds) != list(range(len(kinds))):
        raise CheckpointMismatch(
            f"the names tell layers {sorted(kinds)}; expected recurrent or attention blocks counted from 0"
        )
    return [kinds[layer] for layer in range(len(kinds))]
