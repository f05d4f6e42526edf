"""Deliberately wrong functions, kernels and backends, each with the property that must catch it.

They test the kit: it must pass the controls, and fail each of these by the property named here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from griffin_core.protocol import Kernel
from griffin_core.testing.broken import controls, gates, models, scans


@dataclass(frozen=True)
class Broken:
    """A wrong kernel.

    Attributes:
        kernel: named after the bug; takes NumPy arrays.
        caught_by: the property that must catch it.
        crashes: whether it shows as an exception instead of a wrong value.
    """

    kernel: Kernel
    caught_by: str
    crashes: bool = False

    @property
    def about(self) -> str:
        """What is wrong, in a line."""
        wrong = self.kernel.vjp if self.caught_by == "gradient" else self.kernel.forward
        return (getattr(wrong, "__doc__", None) or "").strip().splitlines()[0]


@dataclass(frozen=True)
class BrokenBackend:
    """The numpy backend with one function replaced, and the law (or property) that must catch it."""

    function: str
    change: Callable[..., Any]
    caught_by: str

    @property
    def name(self) -> str:
        """The bug's name."""
        return self.change.__name__


CONTROLS = (
    Kernel("linear_scan", "control", controls.linear_scan, controls.linear_scan_vjp),
    Kernel("gated_scan", "control", controls.gated_scan, controls.gated_scan_vjp),
    Kernel("conv1d", "control", controls.conv1d, controls.conv1d_vjp),
)
"""Right float32 loops: the kit must find nothing wrong with them."""
_RIGHT = {kernel.op: kernel for kernel in CONTROLS}


def _forward(op: str, caught_by: str, function: Callable[..., Any], crashes: bool = False) -> Broken:
    return Broken(Kernel(op, function.__name__, function, _RIGHT[op].vjp), caught_by, crashes)


def _backward(op: str, function: Callable[..., Any]) -> Broken:
    return Broken(Kernel(op, function.__name__, _RIGHT[op].forward, function), "gradient")


KERNELS: tuple[Broken, ...] = (
    *(
        _forward("linear_scan", name, function)
        for name, function in (
            ("reference", scans.forgets_at_256),
            ("reference", scans.last_channels),
            ("fresh", scans.state_passes_first_reset),
            ("long", scans.bfloat16_carry),
            ("reference", scans.bfloat16_decay),
            ("form", scans.state_in_input_dtype),
            ("reference", scans.state_from_output),
            ("inputs", scans.writes_x),
            ("inputs", scans.writes_h0),
            ("reach", scans.reads_beyond),
            ("layout", scans.ignores_strides),
            ("channels", scans.neighbour_nan),
            ("wide", scans.small_offsets),
            ("documents", scans.multiplies_at_reset),
            ("reference", scans.running_products),
            ("reset", scans.late_reset),
            ("reference", scans.reset_drops_input),
            ("cut", scans.stale_last),
            ("rows", scans.first_row_state),
            ("causal", scans.normalised),
            ("repeat", scans.random_rounding),
            ("reference", scans.clipped_decay),
            ("steps", scans.one_step_path),
            ("linear", scans.saturates),
        )
    ),
    _forward("linear_scan", "empty", scans.needs_a_token, crashes=True),
    _backward("linear_scan", scans.no_h0_gradient),
    _backward("linear_scan", scans.drops_state_cotangent),
    _backward("linear_scan", scans.gradient_crosses_reset),
    _backward("linear_scan", scans.gradient_by_subtraction),
    _backward("linear_scan", scans.nan_gradient_at_zero),
    *(
        _forward("gated_scan", name, function)
        for name, function in (
            ("reference", gates.cancelling_multiplier),
            ("reference", gates.squared_multiplier),
            ("reference", gates.naive_softplus),
            ("form", gates.overflowing_sigmoid),
            ("reference", gates.narrow_gates),
            ("reference", gates.multiplier_at_reset),
            ("reference", gates.no_start_by_default),
            ("padding", gates.padding_decays),
            ("padding", gates.padding_shows_state),
        )
    ),
    _backward("gated_scan", gates.infinite_slope),
    _backward("gated_scan", gates.clipped_slope),
    _backward("gated_scan", gates.first_row_gradient),
    *(
        _forward("conv1d", name, function)
        for name, function in (
            ("cut", gates.conv_keeps_old_state),
            ("steps", gates.conv_short_state),
            ("reset", gates.conv_sees_across),
            ("reference", gates.conv_late_bias),
            ("padding", gates.conv_padding_shifts),
            ("reference", gates.conv_narrow_sum),
        )
    ),
    _backward("conv1d", gates.conv_no_state_gradient),
)
BACKENDS: tuple[BrokenBackend, ...] = (
    BrokenBackend("forward", models.forgets_conv_state, "model.cut"),
    BrokenBackend("forward", models.short_window, "model.reference"),
    BrokenBackend("forward", models.reads_padding, "model.padded"),
    BrokenBackend("forward", models.one_document, "model.packed"),
    BrokenBackend("take", models.sorted_take, "model.take"),
    BrokenBackend("put", models.put_in_place, "model.put"),
    BrokenBackend("load_state", models.narrow_load, "model.exchange"),
    BrokenBackend("dump_params", models.transposed_dump, "model.weights"),
    BrokenBackend("decode", models.eager_decode, "model.greedy"),
    BrokenBackend("decode", models.decode_moves_all, "model.inactive"),
    BrokenBackend("decode", models.filtered_logprobs, "model.sampled"),
    BrokenBackend("linear_scan", models.careless_packing, "packed"),
)
