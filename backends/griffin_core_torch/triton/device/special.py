"""Special functions in three bodies: "ptx" (NVIDIA), "hip" (AMD), "plain" (Triton's own; the interpreter runs it).

The bodies of a machine are single instructions that flush subnormal numbers to zero. A fourth, "worst", is "plain" with
the largest errors of "ptx", up or down by chance, so that the interpreter can prove what the bounds have room for.
Those errors, relative and in units of float32 roundoff, by the makers' documents (tanh
without an instruction: in units of 1, not of its value):

=========== ===== ===== =======
function    ptx   hip   plain
=========== ===== ===== =======
exp2        2.9   2     2
exp         4     3     3
reciprocal  2     2     1
rsqrt       2.9   2     2
tanh        2^13        8
=========== ===== ===== =======
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def disturbed(x, y, UNITS: tl.constexpr, BODY: tl.constexpr):
    """y = f(x), for "worst" off by so many units of roundoff, up or down as the bits of x have it.

    What the machines give exactly stays: infinity, and f(0) and f(1).
    """
    if BODY == "worst":
        mixed = x.to(tl.float32).to(tl.uint32, bitcast=True) * 2654435769
        exact = (tl.abs(y) == float("inf")) | (x == 0.0) | (x == 1.0)
        off = tl.where((mixed >> 31) == 0, y, -y)
        y = tl.where(exact, y, tl.fma(off, UNITS * 5.960464477539063e-08, y))
    return y


@triton.jit
def exp2(x, BODY: tl.constexpr):
    """2^x in float32."""
    if BODY == "ptx":
        y = tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    elif BODY == "hip":
        y = tl.inline_asm_elementwise("v_exp_f32 $0, $1", "=v,v", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        y = disturbed(x, tl.exp2(x), 2.9, BODY)
    return y


@triton.jit
def exp(x, BODY: tl.constexpr):
    """e^x for x <= 0 in float32; exp2 of log2(e) x, and what that product loses in rounding is put back."""
    if BODY == "plain":
        y = tl.exp(x)
    else:
        bounded = tl.where(x < -150.0, -150.0, x)  # so that -inf, which gives 0, needs no case of its own
        t = bounded * 1.4426950408889634
        lost = tl.fma(bounded, 1.925963033500592e-08, tl.fma(bounded, 1.4426950216293335, -t))
        near = exp2(t, BODY)
        y = tl.fma(near, lost * 0.6931471805599453, near)
    return y


@triton.jit
def reciprocal(x, BODY: tl.constexpr):
    """1 / x in float32."""
    if BODY == "ptx":
        y = tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    elif BODY == "hip":
        y = tl.inline_asm_elementwise("v_rcp_f32 $0, $1", "=v,v", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        y = disturbed(x, 1.0 / x, 2.0, BODY)
    return y


@triton.jit
def rsqrt(x, BODY: tl.constexpr):
    """1 / sqrt(x) in float32."""
    if BODY == "ptx":
        y = tl.inline_asm_elementwise(
            "rsqrt.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    elif BODY == "hip":
        y = tl.inline_asm_elementwise("v_rsq_f32 $0, $1", "=v,v", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        y = disturbed(x, tl.rsqrt(x), 2.9, BODY)
    return y


@triton.jit
def tanh(x, BODY: tl.constexpr):
    """tanh(x) in float32, roughly: one instruction where the machine has one, else by an exponential."""
    if BODY == "ptx":
        y = tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        exact = 1.0 - 2.0 * reciprocal(1.0 + exp2(x * 2.8853900817779268, BODY), BODY)
        y = disturbed(x, exact, 8192.0, BODY)
    return y


@triton.jit
def narrow(x, DTYPE: tl.constexpr, BODY: tl.constexpr):
    """float32 x in another dtype, rounded to the nearest, ties to even.

    Triton's interpreter cuts bfloat16 off instead; so that there is nothing left to cut, the bits are rounded first.
    """
    if (BODY == "plain" or BODY == "worst") and tl.bfloat16 == DTYPE:
        bits = x.to(tl.uint32, bitcast=True)
        up = bits + 0x7FFF + ((bits >> 16) & 1)
        x = tl.where(x == x, (up & 0xFFFF0000).to(tl.float32, bitcast=True), x)
    return x.to(DTYPE)
