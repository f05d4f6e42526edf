"""The arguments of the recurrent operations and of the convolution: which there are, of what shape and length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from griffin_core.checks import expect_shape
from griffin_core.errors import InputError

GATE_PARAMS = (
    "recurrent_param",
    "input_gate_weight",
    "input_gate_bias",
    "recurrent_gate_weight",
    "recurrent_gate_bias",
)
"""The parameters of ``rg_lru``."""
MIDDLE_PARAMS = (*GATE_PARAMS, "conv_weight", "conv_bias")
"""The parameters of ``recurrent_middle``."""
PARAMS = {"rg_lru": GATE_PARAMS, "recurrent_middle": MIDDLE_PARAMS}


def check_arguments(op: str, arguments: Mapping[str, Any], starts: Sequence[int] | Any = None) -> None:
    """Refuse arguments whose shapes do not fit to x [b t d], and parameters that are missing.

    Args:
        op: a name of ``protocol.KERNEL_OPS``.
        arguments: by the operation's own names, ``params`` among them where it has any; None is an absent one.
        starts: [n+1] of packed sequences, or None; states then have one row for each.

    Raises:
        InputError: naming the operation, the argument, and what was expected.
    """
    x = arguments["x"]
    if len(x.shape) != 3:
        raise InputError(f"{op}: x has shape {tuple(x.shape)}; expected three axes, [batch, time, width]")
    given = {**arguments, **_params(op, arguments.get("params"))}
    rows = x.shape[0] if starts is None else len(starts) - 1
    for name, shape in _shapes(tuple(x.shape), rows, given).items():
        expect_shape(op, name, given.get(name), shape)


def _params(op: str, params: Any) -> Mapping[str, Any]:
    if op not in PARAMS:
        return {}
    if not isinstance(params, Mapping):
        raise InputError(f"{op}: params is a {type(params).__name__}; expected a dict with {', '.join(PARAMS[op])}")
    for name in PARAMS[op]:
        if params.get(name) is None:
            found = ", ".join(sorted(params)) or "nothing"
            raise InputError(f"{op}: params has no {name!r}; expected {', '.join(PARAMS[op])}, it has {found}")
    return params


def _shapes(x: tuple[int, ...], rows: int, given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every argument there may be, beside those of x [b t d] itself."""
    batch, time, width = x
    per_token, per_channel = (batch, time), (width,)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("log_a", "gate_x", "gate_a"), x)
    shapes |= dict.fromkeys(("reset", "positions"), per_token)
    shapes |= dict.fromkeys(("recurrent_param", "bias", "conv_bias"), per_channel) | {"h0": (rows, width)}
    taps = next((given[name].shape[-1] for name in ("weight", "conv_weight") if name in given), 1)
    shapes |= dict.fromkeys(("weight", "conv_weight"), (width, 1, taps))
    shapes |= dict.fromkeys(("state", "conv_state"), (rows, taps - 1, width))
    if "input_gate_weight" in given:
        blocks = given["input_gate_weight"].shape[0]
        size = width // blocks if blocks and width % blocks == 0 else 0
        if not size:
            raise InputError(f"input_gate_weight has {blocks} blocks; expected a number that divides the width {width}")
        shapes |= dict.fromkeys(("input_gate_weight", "recurrent_gate_weight"), (blocks, size, size))
        shapes |= dict.fromkeys(("input_gate_bias", "recurrent_gate_bias"), (blocks, size))
    return shapes


LONGEST_STEP = 1024
"""Lengths above this are padded to a multiple of it, where a program is compiled for each."""


def standard_length(time: int) -> int:
    """The next of 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, ..., 1024, 2048, 3072, ...: at most half of it is padding."""
    if time > LONGEST_STEP:
        return -(-time // LONGEST_STEP) * LONGEST_STEP
    power = 1 << max(time - 1, 0).bit_length()
    middle = power * 3 // 4
    return middle if power >= 32 and time <= middle else power
