"""What happens to a call of the model before anything is traced: checks of values, and standard lengths.

An engine that compiles makes a program for each shape. Prompts have every length, so outside a traced function a call
is padded on the right to the next standard length: padding changes no state, and its outputs are cut off again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from griffin_core.arguments import standard_length
from griffin_core.checks import PAD, check_capacity, check_positions, check_tokens, held_after
from griffin_core.config import GriffinConfig
from griffin_core.layouts.states import POSITION, state_capacity
from griffin_core_keras.engine import engine


def admit(
    config: GriffinConfig,
    tokens: Any,
    positions: Any | None,
    state: Mapping[str, Any] | None,
    padding: str,
    standardise: bool,
) -> tuple[Any, Any | None, str, int]:
    """Checked arguments of ``hidden``.

    Args:
        standardise: pad to a standard length, on an engine that compiles.

    Returns:
        (tokens, positions, padding, time): padding is "right" where it is seen to be, time is the length given.

    Raises:
        InputError: ids or positions are not legal, or a global layer's cache is too short.
    """
    time = tokens.shape[1] if len(tokens.shape) == 2 else 0
    if not engine.is_concrete(tokens, positions, None if state is None else state[POSITION]):
        return tokens, positions, padding, time
    ids, at = engine.to_numpy(tokens), None if positions is None else engine.to_numpy(positions)
    before = None if state is None else engine.to_numpy(state[POSITION])
    check_tokens(config, ids, at)
    if at is not None:
        check_positions(at, ids.shape, before)
        pad = at == PAD
        padding = "any" if (pad[:, :-1] & ~pad[:, 1:]).any() else "right"
    if state is not None and config.has_global_attention:
        capacity = state_capacity(config, {name: tuple(value.shape) for name, value in state.items()})
        check_capacity(capacity, held_after(at, before, time))
    length = standard_length(time) if standardise and engine.COMPILES_SHAPES else time
    if length == time:
        return tokens, positions, padding, time
    if at is None:
        begin = np.zeros(len(ids), np.int32) if before is None else before
        at, padding = begin[:, None] + np.arange(time, dtype=np.int32), "right"
    extra = ((0, 0), (0, length - time))
    ids, at = np.pad(ids, extra), np.pad(at, extra, constant_values=PAD)
    return engine.from_numpy(ids), engine.from_numpy(at.astype(np.int32)), padding, time
