"""Special functions beside float64: arguments, what a kernel gives for them, and what the stated errors allow."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from griffin_core.shapes import DTYPES, SMALLEST_NORMAL, UNIT_ROUNDOFF
from griffin_core_torch.triton.launch import OPTIONS, body
from griffin_core_torch.triton.loading import interpreted

U, TINY = UNIT_ROUNDOFF["float32"], SMALLEST_NORMAL["float32"]
LARGEST, INFINITE = float(np.finfo(np.float32).max), 0x7F800000
WIDTH, WARPS = 1024, 4
EDGE = 1.0001
"""Of the smallest normal number: what is below may become 0. Rounding exp2's argument moves that border a little."""
KERNELS = Path(__file__).with_name("kernels.py")

TRUTHS: dict[str, Callable[[Any], Any]] = {
    "exp2": np.exp2,
    "exp": np.exp,
    "reciprocal": lambda x: 1.0 / x,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "tanh": np.tanh,
}


def stated() -> dict[str, dict[str, float]]:
    """Relative errors by function and body, in units of roundoff: the table in the docstring of ``device.special``."""
    spec = importlib.util.find_spec("griffin_core_torch.triton.device.special")
    text = Path(str(spec and spec.origin)).read_text(encoding="utf-8")
    lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    top, middle, bottom = (n for n, line in enumerate(lines) if line.startswith("==="))
    cuts = [slice(*found.span()) for found in re.finditer("=+", lines[top])]
    bodies = [lines[top + 1][cut].strip() for cut in cuts[1:]]
    found: dict[str, dict[str, float]] = {}
    for line in lines[middle + 1 : bottom]:
        cells = [line[cut].strip() for cut in cuts]
        found[cells[0]] = {name: _number(cell) for name, cell in zip(bodies, cells[1:], strict=True) if cell}
    return found


def _number(cell: str) -> float:
    base, _, exponent = cell.partition("^")
    return float(base) ** int(exponent or 1)


def arguments(function: str, stride: int) -> np.ndarray:
    """Every ``stride``-th float32 of both signs (of exp: not above 0), subnormal ones too, and the edges of all."""
    swept = np.arange(0, INFINITE, stride, dtype=np.uint32).view(np.float32)
    least, one = np.float32(2.0**-149), np.float32(1.0)
    edges = [0.0, least, np.nextafter(np.float32(TINY), np.float32(0)), TINY, 0.5, one, np.nextafter(one, 2 * one)]
    positive = np.concatenate([swept, np.array([*edges, 2.0, LARGEST, np.inf, np.nan], np.float32)])
    if function == "exp":
        return np.concatenate([-positive, np.zeros(1, np.float32)])
    return np.concatenate([positive, -positive])


def ties(dtype: str, step: int) -> np.ndarray:
    """float32 numbers at, beside and halfway between every ``step``-th number of a 16-bit dtype, and NaN."""
    kept = {"bfloat16": 16, "float16": 13}[dtype]  # bits that are cut off
    high = np.arange(0, 1 << (32 - kept), step, dtype=np.uint32) << np.uint32(kept)
    half = 1 << (kept - 1)
    beside = np.array([0, 1, half - 1, half, half + 1, (1 << kept) - 1], np.uint32)
    bits = (high[:, None] | beside[None, :]).ravel()
    x = np.concatenate([bits, np.array([0x7F800000, 0xFF800000], np.uint32)]).view(np.float32)
    return np.where(np.isnan(x), np.float32(np.nan), x)


def evaluate(function: str, x: np.ndarray, device: str, dtype: str = "float32") -> np.ndarray:
    """What a kernel gives for float32 x [n] there, in float64."""
    given = torch.from_numpy(x).to(device)
    out: Tensor = torch.empty(given.shape, dtype=getattr(torch, dtype), device=device)
    given_by_name = {"x": given, "out": out, "count": len(x), "FUNCTION": function, "WIDTH": WIDTH, "BODY": body()}
    with np.errstate(all="ignore"):  # the interpreter is NumPy
        loaded().apply_kernel[(-(-len(x) // WIDTH),)](**given_by_name, num_warps=WARPS, **OPTIONS)
    return out.cpu().to(torch.float64).numpy()


def loaded() -> ModuleType:
    """``kernels``, compiled or interpreted as is in force."""
    name = f"griffin_core_gpu_proofs_{'interpreted' if interpreted() else 'compiled'}"
    if name not in sys.modules:
        import triton

        spec = importlib.util.spec_from_file_location(name, KERNELS)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        with triton.knobs.runtime.scope():
            triton.knobs.runtime.interpret = bool(interpreted())
            spec.loader.exec_module(module)
    return sys.modules[name]


def largest_error(function: str, x: np.ndarray, got: np.ndarray, units: float, absolute: bool = False) -> float:
    """The largest error in units of roundoff, of the result or (``absolute``) of 1.

    Machines flush: the result of a subnormal argument may be that of 0, and a subnormal result 0.

    Raises:
        AssertionError: it is more than ``units``, or a result that is not finite is not the right one.
    """
    with np.errstate(all="ignore"):
        truth = TRUTHS[function](x.astype(np.float64))
        at_zero = TRUTHS[function](np.copysign(0.0, x.astype(np.float64)))
        errors = np.stack([_errors(got, truth, absolute), _errors(got, at_zero, absolute)])
    errors[1, ~(np.abs(x) < TINY)] = np.inf
    errors = np.where(np.isnan(x), np.where(np.isnan(got), 0.0, np.inf), errors.min(0))
    worst = int(np.argmax(errors))
    assert errors[worst] <= units, (
        f"{function}({x[worst]!r}) is {got[worst]!r}, expected {truth[worst]!r}: {errors[worst]:.4g} units, "
        f"{int((errors > units).sum())} of {len(x)} beyond the {units:g} that are stated"
    )
    return float(errors[worst])


def _errors(got: np.ndarray, truth: np.ndarray, absolute: bool) -> np.ndarray:
    """In units of roundoff; of subnormal results of their last place."""
    size = np.ones_like(truth) if absolute else np.maximum(np.abs(truth), TINY)
    errors = np.abs(got - truth) / (U * size)
    errors = np.where((got == 0.0) & (np.abs(truth) < TINY * EDGE), 0.0, errors)
    errors = np.where(np.isinf(got) & (np.abs(truth) >= LARGEST * (1.0 - 4.0 * U)) & (got * truth > 0), 0.0, errors)
    errors = np.where((got == truth) | (np.isnan(got) & np.isnan(truth)), 0.0, errors)
    return np.where(np.isnan(errors), np.inf, errors)


def wrongly_narrowed(x: np.ndarray, got: np.ndarray, dtype: str) -> int:
    """How many numbers were not rounded to the nearest, ties to even."""
    with np.errstate(all="ignore"):
        expected = x.astype(DTYPES[dtype]).astype(np.float64)
    return int(((got != expected) & ~(np.isnan(got) & np.isnan(expected))).sum())
