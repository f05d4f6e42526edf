"""How public kernels of the same recurrence are imported and called: their layouts, their terms, what they refuse.

Each loader imports its package when it is called and not before: one compiles its CUDA source at import.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

import torch
from torch import Tensor

from griffin_core_torch.scan.gated_eager import find_marks

Shape = tuple[int, int, int]
Run = Callable[..., Tensor]


def decays_channels_first(x: Tensor, log_a: Tensor) -> tuple[Tensor, Tensor]:
    """(a, x) as contiguous [b d t], for accelerated-scan."""
    return log_a.exp().mT.contiguous(), x.mT.contiguous()


def steps_channels_first(x: Tensor, log_a: Tensor) -> tuple[Tensor, Tensor]:
    """(u, delta) as contiguous [b d t] with delta = -log_a and u = x / delta, for a selective scan with A = -1."""
    delta = -log_a
    return (x / delta).mT.contiguous(), delta.mT.contiguous()


def time_first(y: Tensor) -> Tensor:
    """[b d t] as contiguous [b t d]."""
    return y.mT.contiguous()


def accelerated_warp() -> Run:
    with _told_on_stderr():  # the compiler's words are not part of a report
        from accelerated_scan.warp import scan
    return scan


def accelerated_scalar() -> Run:
    from accelerated_scan.scalar import scan

    return scan


def warp_refuses(shape: Shape, dtype: str) -> str | None:
    time = shape[1]
    if 32 <= time <= 65_536 and time & (time - 1) == 0:
        return None
    return f"tokens={time} is not a power of two from 32 to 65536"


def fla_chunk() -> Run:
    from fla.ops.hgrn import chunk_hgrn

    return lambda x, log_a: chunk_hgrn(x, log_a)[0]


def fla_recurrent() -> Run:
    from fla.ops.hgrn import fused_recurrent_hgrn

    return lambda x, log_a: fused_recurrent_hgrn(x, log_a)[0]


def hawk_scan() -> Run:
    from hawk.scan_fused import fused_linear_scan

    return fused_linear_scan


def hawk_refuses(shape: Shape, dtype: str) -> str | None:
    if dtype != "bfloat16":
        return f"it rounds what it stores to bfloat16, whatever the dtype; dtype is {dtype}"
    if shape[1] < 2 or shape[2] % 64:
        return f"tokens={shape[1]}, width={shape[2]}; it needs 2 tokens and a multiple of 64 channels"
    return within_32_bits(shape, dtype)


def within_32_bits(shape: Shape, dtype: str) -> str | None:
    """Refuses arrays of 2^31 elements, for kernels that count them in 32 bits."""
    size = shape[0] * shape[1] * shape[2]
    return None if size < 2**31 else f"{size:,} elements; it counts them in 32 bits"


def mamba_scan() -> Run:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def run(u: Tensor, delta: Tensor) -> Tensor:
        ones, minus = _one_state(u.shape[1], u.device)
        return selective_scan_fn(u, delta, minus, ones, ones)

    return run


@functools.lru_cache(maxsize=2)
def _one_state(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B or C, A) of a selective scan with one state for each channel: ones and minus ones, float32 [d 1]."""
    ones = torch.ones(width, 1, dtype=torch.float32, device=device)
    return ones, -ones


def mamba_refuses(shape: Shape, dtype: str) -> str | None:
    return "x / -log_a, which it needs, overflows float16" if dtype == "float16" else None


def compiled_tree() -> Run:
    return torch.compile(gated_by_tree, dynamic=False)


def gated_by_tree(x: Tensor, gate_x: Tensor, gate_a: Tensor, recurrent_param: Tensor) -> Tensor:
    """``gated_scan`` from plain operations and PyTorch's ``associative_scan``, float32 inside; forward only."""
    from torch._higher_order_ops.associative_scan import associative_scan

    from griffin_core_torch.gates import scan_input

    u, log_a = scan_input(x, gate_x, gate_a, recurrent_param, find_marks(None, *x.shape[:2], True, x.device))
    mode = "generic" if x.device.type == "cpu" else "pointwise"
    _, y = associative_scan(_joined, (log_a.exp(), u), dim=1, combine_mode=mode)
    return y.to(x.dtype)


def _joined(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two spans of the recurrence as one: (product of decays, state at the end from zeros)."""
    return left[0] * right[0], left[1] * right[0] + right[1]


def transformers_loop() -> Run:
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

    def run(x: Tensor, log_a: Tensor) -> Tensor:
        nowhere = torch.zeros(*x.shape[:2], 1, dtype=torch.bool, device=x.device)
        # The method reads nothing of its module.
        y: Tensor = RecurrentGemmaRglru._rnn_scan(None, x, log_a.exp(), nowhere, None)[0]
        return y

    return run


@contextmanager
def _told_on_stderr() -> Iterator[None]:
    """What this process and its children write to standard output goes to standard error, for a while."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
