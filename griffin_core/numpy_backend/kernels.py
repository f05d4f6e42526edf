"""The numpy backend's kernel records: the float64 reference of each operation, and a float32 loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from griffin_core import reference
from griffin_core.numpy_backend import loop
from griffin_core.numpy_backend.arrays import cast_like
from griffin_core.protocol import Kernel
from griffin_core.reference import gradients
from griffin_core.shapes import Array

REFERENCE = "reference"


def _outputs(x: Array, y: Array, h: Array) -> tuple[Array, Array]:
    """y in x's dtype, the state float32."""
    return y.astype(x.dtype), h.astype(np.float32)


def _linear_scan(x: Array, log_a: Array, h0: Any = None, reset: Any = None) -> tuple[Array, Array]:
    return _outputs(x, *reference.linear_scan(x, log_a, h0, reset))


def _gated_scan(
    x: Array, gate_x: Array, gate_a: Array, recurrent_param: Array, h0: Any = None, positions: Any = None
) -> tuple[Array, Array]:
    return _outputs(x, *reference.gated_scan(x, gate_x, gate_a, recurrent_param, h0, positions))


def _rg_lru(x: Array, params: Mapping[str, Array], h0: Any = None, positions: Any = None) -> tuple[Array, Array]:
    return _outputs(x, *reference.rg_lru(x, params, h0, positions))


def _recurrent_middle(
    x: Array, params: Mapping[str, Array], h0: Any = None, conv_state: Any = None, positions: Any = None
) -> tuple[Array, Array, Array]:
    y, h, conv = reference.recurrent_middle(x, params, h0, conv_state, positions)
    return (*_outputs(x, y, h), conv.astype(x.dtype))


def _conv1d(x: Array, weight: Array, bias: Array, state: Any = None, positions: Any = None) -> tuple[Array, Array]:
    y, state = reference.conv1d(x, weight, bias, state, positions)
    return y.astype(x.dtype), state.astype(x.dtype)


def _linear_scan_vjp(
    x: Array, log_a: Array, h0: Any, reset: Any, y: Array, h: Array, dy: Array, dh: Any
) -> tuple[Array | None, ...]:
    return *cast_like(gradients.linear_scan_vjp(x, log_a, h0, reset, dy, dh), (x, log_a, h0)), None


def _gated_scan_vjp(
    x: Array,
    gate_x: Array,
    gate_a: Array,
    param: Array,
    h0: Any,
    positions: Any,
    y: Array,
    h: Array,
    dy: Array,
    dh: Any,
) -> tuple[Array | None, ...]:
    found = gradients.gated_scan_vjp(x, gate_x, gate_a, param, h0, positions, dy, dh)
    return *cast_like(found, (x, gate_x, gate_a, param, h0)), None


def _rg_lru_vjp(
    x: Array, params: Mapping[str, Array], h0: Any, positions: Any, y: Array, h: Array, dy: Array, dh: Any
) -> tuple[Any, ...]:
    dx, dparams, dh0 = gradients.rg_lru_vjp(x, params, h0, positions, dy, dh)
    first, last = cast_like((dx, dh0), (x, h0))
    return first, _like_params(dparams, params), last, None


def _recurrent_middle_vjp(
    x: Array,
    params: Mapping[str, Array],
    h0: Any,
    conv_state: Any,
    positions: Any,
    y: Array,
    h: Array,
    conv: Array,
    dy: Array,
    dh: Any,
    dconv: Any,
) -> tuple[Any, ...]:
    dx, dparams, *rest = gradients.recurrent_middle_vjp(x, params, h0, conv_state, positions, dy, dh, dconv)
    first, *last = cast_like((dx, *rest), (x, h0, conv_state))
    return first, _like_params(dparams, params), *last, None


def _conv1d_vjp(
    x: Array, weight: Array, bias: Array, state: Any, positions: Any, y: Array, after: Array, dy: Array, dafter: Any
) -> tuple[Array | None, ...]:
    found = gradients.conv1d_vjp(x, weight, bias, state, positions, dy, dafter)
    return *cast_like(found, (x, weight, bias, state)), None


def _like_params(found: Mapping[str, Array], params: Mapping[str, Array]) -> dict[str, Array]:
    return {name: value.astype(params[name].dtype) for name, value in found.items()}


KERNELS: tuple[Kernel, ...] = (
    Kernel("linear_scan", REFERENCE, _linear_scan, _linear_scan_vjp),
    Kernel("linear_scan", "loop", loop.linear_scan, loop.linear_scan_vjp, loop.supports),
    Kernel("gated_scan", REFERENCE, _gated_scan, _gated_scan_vjp),
    Kernel("rg_lru", REFERENCE, _rg_lru, _rg_lru_vjp),
    Kernel("recurrent_middle", REFERENCE, _recurrent_middle, _recurrent_middle_vjp),
    Kernel("conv1d", REFERENCE, _conv1d, _conv1d_vjp),
)
"""The reference comes first: "auto" is the spec itself."""
