"""What happens to a call of the model before anything is traced: checks of values, and standard lengths.

A program is compiled for one shape. Prompts have every length, so outside a traced function a call is padded on the
right to the next standard length: padding changes no state, and its outputs are cut off again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from griffin_core.arguments import standard_length
from griffin_core.checks import PAD, check_positions, check_tokens, held_after
from griffin_core.config import GriffinConfig
from griffin_core.layouts.states import POSITION
from griffin_core_jax.arrays import is_concrete
from griffin_core_jax.attention.ring import check_room
from griffin_core_jax.layout import SEGMENTS


def admit(
    config: GriffinConfig,
    tokens: Array,
    positions: Array | None,
    state: Mapping[str, Any] | None,
    padding: str,
    standardise: bool,
) -> tuple[Array, Array | None, str, int]:
    """Checked arguments of ``hidden``.

    Args:
        standardise: pad to a standard length.

    Returns:
        (tokens, positions, padding, time): padding is "right" where it is seen to be, time is the length given.

    Raises:
        InputError: ids or positions are not legal, or a global layer's cache is too short.
    """
    time = tokens.shape[1] if tokens.ndim == 2 else 0
    if not is_concrete(tokens, positions, None if state is None else state[POSITION]):
        return tokens, positions, padding, time
    ids, at = np.asarray(tokens), None if positions is None else np.asarray(positions)
    before = None if state is None else np.asarray(state[POSITION])
    check_tokens(config, ids, at)
    if at is not None:
        check_positions(at, ids.shape, before)
        pad = at == PAD
        padding = "any" if (pad[:, :-1] & ~pad[:, 1:]).any() else "right"
    if state is not None and config.has_global_attention:
        check_room(cache_size(state), None, held_after(at, before, time))
    length = standard_length(time)
    if not standardise or length == time:
        return tokens, positions, padding, time
    if at is None:
        begin = np.zeros(len(ids), np.int32) if before is None else before
        at = begin[:, None] + np.arange(time, dtype=np.int32)
        padding = "right"
    extra = ((0, 0), (0, length - time))
    return jnp.pad(tokens, extra), jnp.asarray(np.pad(at, extra, constant_values=PAD)), padding, time


def cache_size(state: Mapping[str, Any]) -> int:
    """Slots of the attention caches."""
    caches = [leaf["k"] for places in state[SEGMENTS] for leaf in places if "k" in leaf]
    return int(jax.tree.leaves(caches)[0].shape[2])
