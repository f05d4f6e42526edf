"""The programs that are compiled and counted: every kernel in the forms that real calls take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from griffin_core_torch.triton.plan import CONV_ROWS, CONV_SEGMENTS, FORWARD_ROWS, block_plan, saved_rows
from griffin_core_torch.triton.step import BATCH_ROWS, COLUMNS, KEYS, STEP_WARPS
from griffin_core_torch.triton.token_ops import PRODUCT_WIDTH

WIDTH_ALL, WIDTH, AGAIN = 2560, 64, 2
"""Channels of the model, channels of a program, rows that the backward pass reads again."""
TAPS, GATE_BLOCK = 4, 256
"""Of the convolution; channels of a gate block."""
CONV_FORMS = (("bf16", "none", False), ("fp32", "none", False), ("bf16", "positions", False), ("bf16", "none", True))
"""Dtype, marks and whether sequences are packed."""
SEGMENTS = {"exact": 4, "aggregate": 8, "given": 8}
"""Warps of a program, as the plan has them where it chooses the carry."""


@dataclass(frozen=True)
class Program:
    """A kernel with what it is compiled for.

    Attributes:
        key: its name in the table.
        module, kernel: where it stands in ``device``.
        dtype: Triton's name of the dtype of [b t d] arrays.
        warps: of a program.
        elements: [b t d] elements that one thread handles; for one token, weights of a gate times rows of the batch.
        constants: its ``constexpr`` arguments.
    """

    key: str
    module: str
    kernel: str
    dtype: str
    warps: int
    elements: int
    constants: dict[str, Any] = field(hash=False)


def programs() -> tuple[Program, ...]:
    """All of them, most used first."""
    found = [
        _scan(cell, direction, carry, "bf16")
        for cell in ("gated", "linear")
        for direction, carry in (("forward", "exact"), ("forward", "aggregate"), ("backward", "aggregate"))
    ]
    for direction, carry in (("forward", "exact"), ("backward", "aggregate")):
        found += [_scan("gated", direction, carry, "fp32"), _scan("gated", direction, carry, "bf16", "positions")]
        found += [_scan("linear", direction, carry, "bf16", "reset"), _scan("gated", direction, "given", "bf16")]
        found += [_scan("gated", direction, carry, "bf16", "start", packed=True)]
        found += [_totals("gated", direction == "backward")]
        found += [_conv(direction, dtype, kind, packed) for dtype, kind, packed in CONV_FORMS]
    for kind, packed in (("none", False), ("positions", False), ("start", True)):
        found += [_fused(direction, kind, packed) for direction in ("forward", "backward")]
    found += [_step(dtype, rows) for dtype in ("bf16", "fp32") for rows in (1, BATCH_ROWS)]
    found += [_scan("approx", "forward", "exact", "bf16")]
    norm = {"WIDTH": 1 << (WIDTH_ALL - 1).bit_length()}
    found += [Program("norm/bf16", "token_kernels", "norm_kernel", "bf16", 4, norm["WIDTH"] // 128, norm)]
    product = {"WIDTH": PRODUCT_WIDTH}
    found += [
        Program("gelu_product/bf16", "token_kernels", "gelu_product_kernel", "bf16", 4, PRODUCT_WIDTH // 128, product)
    ]
    return tuple(found)


def _common(cell: str, kind: str, rows: int, segments: int, packed: bool = False) -> dict[str, Any]:
    strides = {f"{name}_time": WIDTH_ALL for name in ("x", "y", "z")}
    cut = {"ROWS": rows, "SEGMENTS": segments, "WIDTH": WIDTH, "WHOLE": kind == "none"}
    marks = {"MARKS": kind, "PACKED": packed, "HAS_H0": True}
    return {**strides, **cut, **marks, "CELL": cell}


def _scan(cell: str, direction: str, carry: str, dtype: str, kind: str = "none", packed: bool = False) -> Program:
    rows = FORWARD_ROWS[kind != "none"] if direction == "forward" else saved_rows(2 if dtype == "bf16" else 4, packed)
    extra: dict[str, Any] = {"out_time": WIDTH_ALL, "EVERY": 0}
    if direction == "backward":
        extra = {"dout_time": WIDTH_ALL, "grad_time": WIDTH_ALL, "AGAIN": AGAIN}
    constants = {**_common(cell, kind, rows, SEGMENTS[carry], packed), **extra, "CARRY": carry, "SLOTS": False}
    op = "gated_scan/approx" if cell == "approx" else f"{cell}_scan"
    key = f"{op}/{direction}/{carry}/{dtype}" + ("" if kind == "none" else f"/{kind}") + "/packed" * packed
    name = f"{direction}_kernel"
    return Program(key, name, name, dtype, SEGMENTS[carry], rows * WIDTH // 32, constants)


def _totals(cell: str, back: bool) -> Program:
    rows = saved_rows(2) if back else FORWARD_ROWS[False]
    constants = {**_common(cell, "none", rows, SEGMENTS["given"]), "dout_time": WIDTH_ALL, "BACK": back}
    key = f"{cell}_scan/totals/{'backward' if back else 'forward'}/bf16"
    return Program(key, "totals", "totals_kernel", "bf16", SEGMENTS["given"], rows * WIDTH // 32, constants)


def _fused(direction: str, kind: str, packed: bool) -> Program:
    """While a gradient is asked for."""
    rows = saved_rows(2, packed)
    plan = block_plan((1, WIDTH_ALL, WIDTH_ALL), GATE_BLOCK, rows)
    cut = {"BLOCK": GATE_BLOCK, "LEVELS": rows.bit_length() - 1, "EVERY": rows, "SLOTS": False, "AGAIN": AGAIN}
    strides = {"out_time": WIDTH_ALL, "dout_time": WIDTH_ALL, "dx_time": WIDTH_ALL, "dgates_time": 2 * WIDTH_ALL}
    constants = {**_common("gated", kind, rows, plan.segments, packed), **cut, **strides}
    constants |= {"CARRY": plan.carry, "WIDTH": plan.width}
    key = f"rg_lru/{direction}/bf16" + ("" if kind == "none" else f"/{kind}") + "/packed" * packed
    name = "rg_lru_kernel" if direction == "forward" else "rg_lru_backward_kernel"
    return Program(key, name, name, "bf16", plan.segments, rows * plan.width // 32, constants)


def _conv(direction: str, dtype: str, kind: str, packed: bool) -> Program:
    back = direction == "backward"
    cut = {"ROWS": CONV_ROWS[back], "SEGMENTS": CONV_SEGMENTS, "WIDTH": WIDTH, "WHOLE": kind == "none" and not packed}
    strides = {f"{name}_time": WIDTH_ALL for name in ("x", "out", "dout", "grad")}
    marks = {"MARKS": kind, "PACKED": packed, "HAS_STATE": True, "SLOTS": False, "TAPS": TAPS}
    key = f"conv1d/{direction}/{dtype}" + ("" if kind == "none" else f"/{kind}") + "/packed" * packed
    name = "conv_backward_kernel" if back else "conv_kernel"
    return Program(key, name, name, dtype, CONV_SEGMENTS, CONV_ROWS[back] * WIDTH // 32, {**cut, **strides, **marks})


def _step(dtype: str, rows: int) -> Program:
    cut = {"BLOCK": GATE_BLOCK, "KEYS": KEYS[rows], "COLUMNS": COLUMNS, "ROWS": rows, "TAPS": TAPS, "SLOTS": True}
    elements = rows * GATE_BLOCK * COLUMNS // (STEP_WARPS * 32)
    return Program(f"recurrent_step/{rows}/{dtype}", "step_kernel", "step_kernel", dtype, STEP_WARPS, elements, cut)
