"""The model on the numpy backend: the float64 reference inside, the promised dtypes outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import numpy as np

from griffin_core import reference
from griffin_core.checks import PAD, check_positions, check_tokens
from griffin_core.config import GriffinConfig
from griffin_core.errors import InputError
from griffin_core.layouts.params import EMBEDDING
from griffin_core.layouts.states import POSITION
from griffin_core.numpy_backend import ops
from griffin_core.numpy_backend.arrays import NAME, as_dtype
from griffin_core.numpy_backend.kernels import REFERENCE
from griffin_core.reference.numeric import Tap, compaction, no_tap, scatter_time
from griffin_core.registry import select_kernel
from griffin_core.shapes import Array


def hidden(
    config: GriffinConfig,
    params: Mapping[str, Array],
    tokens: Array,
    positions: Array | None = None,
    state: Mapping[str, Array] | None = None,
    padding: str = "any",
    kernel: str | None = None,
    compute_dtype: str | None = None,
    capture: MutableMapping[str, Array] | None = None,
) -> tuple[Array, dict[str, Array] | None]:
    """The final norm's output for every token, and the state after the last.

    Args:
        tokens: int [b t]; any value at padding.
        positions: int32 [b t]: 0 starts a document, -1 is padding. None continues the state, or starts a
            document without one.
        state: from ``init_state``, ``load_state`` or an earlier call; None, and none is returned.
        padding: "any": padding may stand anywhere; "right": the caller promises it stands at the end of rows.
        kernel: for the recurrent operations; None asks GRIFFIN_KERNEL, else "auto".
        compute_dtype: dtype of x; None is that of the parameters. Products are float64 here.
        capture: a dict to fill with named activations, float32 ("layers.N.log_a", "layers.N.h", ...).

    Returns:
        (x [b t m], 0 at padding; the state in its own dtypes or None).

    Raises:
        InputError: tokens, positions or ``padding`` are not legal.
        KernelNotSupported: the named kernel cannot run this call.
    """
    tokens = np.asarray(tokens)
    positions = _checked_positions(config, tokens, positions, state, padding)
    compute = as_dtype(compute_dtype) if compute_dtype else params[EMBEDDING].dtype
    seen: dict[str, Array] = {}
    tap = no_tap if capture is None else _recorder(seen)
    middle = _middle(kernel, compute)
    x, new = reference.hidden(config, params, tokens, positions, state, padding, tap, middle)
    if capture is not None:
        order = compaction(positions)
        capture.update({name: scatter_time(value, order) for name, value in seen.items()})
    if new is None or state is None:
        return x.astype(compute), None
    return x.astype(compute), {name: value.astype(state[name].dtype) for name, value in new.items()}


def logits(config: GriffinConfig, params: Mapping[str, Array], x: Array, compute_dtype: str | None = None) -> Array:
    """float32 [b t v]: x times the embedding (or ``lm_head``), soft-capped where the config says so."""
    return reference.logits(config, params, x).astype(np.float32)


def forward(
    config: GriffinConfig,
    params: Mapping[str, Array],
    tokens: Array,
    positions: Array | None = None,
    state: Mapping[str, Array] | None = None,
    padding: str = "any",
    kernel: str | None = None,
    compute_dtype: str | None = None,
    capture: MutableMapping[str, Array] | None = None,
) -> tuple[Array, dict[str, Array] | None]:
    """``logits`` of ``hidden``, whose arguments, state and errors these are: (float32 [b t v], state)."""
    x, new = hidden(config, params, tokens, positions, state, padding, kernel, compute_dtype, capture)
    return logits(config, params, x, compute_dtype), new


def _checked_positions(
    config: GriffinConfig, tokens: Array, positions: Array | None, state: Mapping[str, Array] | None, padding: str
) -> Array:
    if padding not in ("any", "right"):
        raise InputError(f"padding={padding!r}; expected 'any', or 'right' to promise right-padded rows")
    start = None if state is None else np.asarray(state[POSITION])
    if positions is None:
        check_tokens(config, tokens)
        begin = np.zeros(len(tokens), np.int32) if start is None else start
        positions = begin[:, None] + np.arange(tokens.shape[1], dtype=np.int32)
    positions = np.asarray(positions)
    check_positions(positions, tokens.shape, start)
    check_tokens(config, tokens, positions)
    pad = positions == PAD
    if padding == "right" and (pad[:, :-1] & ~pad[:, 1:]).any():
        row = int(np.argmax((pad[:, :-1] & ~pad[:, 1:]).any(axis=1)))
        raise InputError(f"row {row} has padding before a token, but padding='right' was promised; use padding='any'")
    return positions


def _recorder(seen: dict[str, Array]) -> Tap:
    def tap(name: str, value: Array) -> Array:
        seen[name] = value.astype(np.float32)
        return value

    return tap


def _middle(kernel: str | None, compute: np.dtype[Any]) -> Callable[..., tuple[Array, Array, Array]]:
    """``recurrent_middle`` inside the model: the reference without rounding, or another kernel in ``compute``."""

    def middle(x: Array, params: Any, h0: Any, conv_state: Any, positions: Array, tap: Tap) -> Any:
        arguments = {"x": x.astype(compute), "params": params, "h0": h0, "conv_state": conv_state}
        record = select_kernel(NAME, "recurrent_middle", ops.describe({**arguments, "positions": positions}), kernel)
        if tap is not no_tap or (record is not None and record.name == REFERENCE):
            found = reference.recurrent_middle(x, params, h0, conv_state, positions, tap=tap)
            if record is not None and record.name == REFERENCE:
                return found
        return ops.recurrent_middle(**arguments, positions=positions, kernel=kernel)

    return middle
