"""Rows of one token each: the norm, and the product behind a GELU. One launch where tensor operations take several."""

from __future__ import annotations

import triton
import triton.language as tl

from .cells import sigmoid
from .rows import add
from .special import narrow, rsqrt


@triton.jit
def norm_kernel(x, scale, out, width, eps, WIDTH: tl.constexpr, BODY: tl.constexpr):
    """out = x / sqrt(mean x^2 + eps) (1 + scale) for a row of x [b m]."""
    row = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, WIDTH)
    inside = channels < width
    value = tl.load(x + row * width + channels, mask=inside, other=0.0).to(tl.float32)
    factor = 1.0 + tl.load(scale + channels, mask=inside, other=0.0).to(tl.float32)
    square = tl.reduce(value * value, 0, add) / width + eps
    found = value * rsqrt(square, BODY) * factor
    tl.store(out + row * width + channels, narrow(found, out.dtype.element_ty, BODY), mask=inside)


@triton.jit
def gelu_product_kernel(gate, up, out, count, WIDTH: tl.constexpr, BODY: tl.constexpr):
    """out = gelu(gate) up, with the tanh form of GELU: g sigmoid(2 sqrt(2 / pi) (g + 0.044715 g^3))."""
    at = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    inside = at < count
    g = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    inner = g * tl.fma(g * g, 0.07135481282566577, 1.5957691216057308)
    found = g * sigmoid(inner, BODY) * tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, narrow(found, out.dtype.element_ty, BODY), mask=inside)
