"""Kernels that the proofs launch themselves: one special function over an array."""

from __future__ import annotations

import triton
import triton.language as tl

from griffin_core_torch.triton.loading import device

_special = device(
    "special"
)  # in the form that is in force while this file is loaded: ``sweeps`` loads it once for each
exp2, exp, reciprocal, rsqrt = _special.exp2, _special.exp, _special.reciprocal, _special.rsqrt
tanh, narrow = _special.tanh, _special.narrow


@triton.jit
def apply_kernel(x, out, count, FUNCTION: tl.constexpr, WIDTH: tl.constexpr, BODY: tl.constexpr):
    """out = f(x) of float32 x [n]; "narrow" rounds to the dtype of ``out``, the others give float32."""
    at = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    value = tl.load(x + at, mask=at < count, other=1.0)
    if FUNCTION == "exp2":
        found = exp2(value, BODY)
    elif FUNCTION == "exp":
        found = exp(value, BODY)
    elif FUNCTION == "reciprocal":
        found = reciprocal(value, BODY)
    elif FUNCTION == "rsqrt":
        found = rsqrt(value, BODY)
    elif FUNCTION == "tanh":
        found = tanh(value, BODY)
    else:
        found = narrow(value, out.dtype.element_ty, BODY)
    tl.store(out + at, found, mask=at < count)
